# m3index as a container: CPU by default, CUDA with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
#
#   docker build -t m3index .
#   docker run --rm -v "$PWD:/data" m3index sync corpus.jsonl --uri http://milvus:19530 -c docs
#
# `nightly` in it runs sync every night (deploy/nightly.sh; the profile cron of docker-compose.yml).
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 10001 m3index \
    && mkdir /data \
    && chown m3index /data

COPY pyproject.toml README.md LICENSE constraints.txt /src/
COPY requirements /src/requirements
COPY m3index /src/m3index
COPY schemas /src/schemas

# The version comes from git's tag, which is not in here: --build-arg VERSION=1.2.3
ARG VERSION=0.1.0.dev0
RUN pip install --no-cache-dir --require-hashes --no-deps -r /src/requirements/image.txt \
    && SETUPTOOLS_SCM_PRETEND_VERSION="${VERSION}" pip install --no-cache-dir --no-build-isolation \
        --extra-index-url "${TORCH_INDEX}" -c /src/constraints.txt "/src[offline,serve]" \
    && rm -rf /src

COPY --chmod=755 deploy/nightly.sh /usr/local/bin/nightly

USER 10001
WORKDIR /data
ENV HF_HOME=/data/.cache/huggingface \
    XDG_CACHE_HOME=/data/.cache \
    PYTHONUNBUFFERED=1

ENTRYPOINT ["m3index"]
CMD ["--help"]
