# m3index as a container: CPU by default, CUDA with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
#
#   docker build -t m3index .
#   docker run --rm -v "$PWD:/data" m3index sync corpus.jsonl --uri http://milvus:19530 -c docs
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 10001 m3index \
    && mkdir /data \
    && chown m3index /data

COPY pyproject.toml README.md LICENSE constraints.txt /src/
COPY m3index /src/m3index
COPY schemas /src/schemas

RUN pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" -c /src/constraints.txt "/src[offline,serve]" \
    && rm -rf /src

USER 10001
WORKDIR /data
ENV HF_HOME=/data/.cache/huggingface \
    PYTHONUNBUFFERED=1

ENTRYPOINT ["m3index"]
CMD ["--help"]
