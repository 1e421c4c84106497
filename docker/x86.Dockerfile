# The runtime on x86-64, on the CPU or an NVIDIA GPU. From a clone:
#   docker build -f docker/x86.Dockerfile -t taidpt .
#   docker build -f docker/x86.Dockerfile -t taidpt:cuda \
#     --build-arg BASE=nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 --build-arg ONNXRUNTIME=onnxruntime-gpu .
#   docker run --rm -v "$PWD:/data" taidpt tag street.taidpt clip.mp4 --report report.html
ARG BASE=ubuntu:24.04
FROM ${BASE}
ARG ONNXRUNTIME=onnxruntime
# Ubuntu keeps no old versions, so a pinned one would stop building within weeks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/taidpt
COPY pyproject.toml README.md LICENSE NOTICE MANIFEST.in /src/
COPY taidpt /src/taidpt
COPY runtime /src/runtime
COPY kernels /src/kernels
COPY export /src/export
# Both builds of ONNX Runtime have the same files: the plain one goes before the other comes.
RUN /opt/taidpt/bin/pip install --no-cache-dir "/src[mqtt,calibrate]" \
    && /opt/taidpt/bin/pip uninstall --yes onnxruntime \
    && /opt/taidpt/bin/pip install --no-cache-dir "${ONNXRUNTIME}>=1.18" \
    && rm -rf /src
RUN useradd --create-home --uid 10001 taidpt
ENV PATH=/opt/taidpt/bin:$PATH
USER 10001
WORKDIR /data
# With TAIDPT_BUNDLE set, its files are checked too.
HEALTHCHECK --interval=5m --timeout=60s --start-period=30s \
    CMD ["sh", "-c", "taidpt doctor ${TAIDPT_BUNDLE:-} --json - > /dev/null"]
ENTRYPOINT ["taidpt"]
CMD ["--help"]
