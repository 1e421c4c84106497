# The runtime on a Jetson Orin with JetPack 6, on its GPU. On the board, from a clone:
#   docker build -f docker/jetson.Dockerfile -t taidpt .
#   docker run --rm --runtime nvidia -v "$PWD:/data" taidpt tag street.taidpt clip.mp4 --report report.html
# Another JetPack needs its own base, and cuda-bindings no newer than its CUDA.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
ARG CUDA_BINDINGS=cuda-bindings<13
# Ubuntu keeps no old versions, so a pinned one would stop building within weeks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv fonts-dejavu-core \
       gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
    && rm -rf /var/lib/apt/lists/*
# TensorRT's Python package is JetPack's own.
RUN python3 -m venv --system-site-packages /opt/taidpt
COPY pyproject.toml README.md LICENSE NOTICE MANIFEST.in /src/
COPY taidpt /src/taidpt
COPY runtime /src/runtime
COPY kernels /src/kernels
COPY export /src/export
# onnx and onnx-ir make an fp16 or int8 graph on the device.
RUN /opt/taidpt/bin/pip install --no-cache-dir "/src[mqtt,calibrate]" "onnx>=1.17" "onnx-ir>=1.1" \
       "${CUDA_BINDINGS}" \
    && rm -rf /src
RUN useradd --create-home --uid 10001 --groups video taidpt
ENV PATH=/opt/taidpt/bin:$PATH
USER 10001
WORKDIR /data
# With TAIDPT_BUNDLE set, its files and its engine are checked too.
HEALTHCHECK --interval=5m --timeout=60s --start-period=60s \
    CMD ["sh", "-c", "taidpt doctor ${TAIDPT_BUNDLE:-} --json - > /dev/null"]
ENTRYPOINT ["taidpt"]
CMD ["--help"]
