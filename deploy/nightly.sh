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
  if [ -n "$job" ]; then
    kill -TERM "$job" 2> /dev/null
    wait "$job"
  fi
  exit 143
}
trap stop TERM INT

while :; do
  m3index sync "$@" &
  job=$!
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
  sleep $((next - now)) &
  job=$!
  wait "$job"
  job=
done
