#!/bin/sh
# m3index sync now and then every night, in the foreground and without root: cron for a container.
#
#   NIGHTLY_AT=03:15 nightly.sh /corpus --collection docs --json      the arguments are those of m3index sync
#
# NIGHTLY_AT is in the container's time zone (TZ; UTC if unset). /tmp/nightly.failed is there while the last run ended
# with anything but 0 or 3 (see docs/cron.md): a health check looks for it. SIGTERM goes on to the run, which ends after
# the batch in hand. Needs GNU date.
set -u

at=${NIGHTLY_AT:-03:15}
failed=/tmp/nightly.failed
date -d "tomorrow $at" +%s > /dev/null || exit 2

job=
stop() {
  trap - TERM INT
  set +u
  for child in $job $!; do # $! is the run if the signal came before it was noted, else a pause
    kill -TERM "$child" 2> /dev/null
    wait "$child"
  done
  exit 143
}
trap stop TERM INT

# A signal that comes just before a wait is seen after it, in dash. So nothing is waited for longer than this.
pause() {
  sleep 1 &
  wait "$!"
}

while :; do
  m3index sync "$@" &
  job=$!
  while kill -0 "$job" 2> /dev/null; do pause; done
  wait "$job"
  code=$?
  job=
  case $code in
    0 | 3) rm -f "$failed" ;;
    *) : > "$failed" ;;
  esac
  now=$(date +%s)
  next=$(date -d "today $at" +%s)
  [ "$next" -gt "$now" ] || next=$(date -d "tomorrow $at" +%s)
  echo "m3index sync ended with $code; the next run is at $(date -d "@$next" '+%Y-%m-%d %H:%M %Z')" >&2
  while [ "$(date +%s)" -lt "$next" ]; do pause; done
done
