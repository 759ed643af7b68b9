# The engine: SGLang with its CUDA kernels, and Ray. Build from the project's root:
#   docker build -f docker/engine.Dockerfile -t r1-engine:0.1.0 .
# SGLang publishes variants for older drivers, too: --build-arg SGLANG_IMAGE=lmsysorg/sglang:v0.5.23-cu129
ARG SGLANG_IMAGE=lmsysorg/sglang:v0.5.23

FROM ${SGLANG_IMAGE}
# The image's Python is the distribution's own, which pip else refuses to write to.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Versions as in uv.lock. All else that r1_engine imports comes with SGLang, whose own pins must not move.
RUN python3 -m pip install "ray[default]==2.60.0" "nvidia-ml-py==13.615.71"
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY engine/r1_engine engine/r1_engine
COPY benchmarks/r1_bench benchmarks/r1_bench
RUN python3 -m pip install --no-deps . && ln -sf "$(command -v python3)" /usr/local/bin/python
# What would end the image's build rather than a gang's start: a wrong SGLang, a Ray that moved one of its pins.
RUN python -c "import sglang.version as v; assert v.__version__ == '0.5.23', v.__version__" && python -c "import ray, r1_engine"
WORKDIR /
# The user stays the base image's, root: kernels that it compiled lie in its home, and RDMA pins memory by a capability
# (IPC_LOCK) that Kubernetes gives to root only. The pod drops all others.
# What SGLang compiles itself (DeepGEMM, Triton, CuTe, FlashInfer …) goes to SGLANG_CACHE_DIR, /root/.cache/sglang, and
# ends with the pod. An image derived from this one can carry it: docs/design/engine.md, "Compiled kernels".
ENV PYTHONUNBUFFERED=1
EXPOSE 30000 8500
CMD ["python", "-m", "r1_engine"]
