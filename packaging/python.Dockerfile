# The Python package. From the root of the source tree:
#   docker build -f packaging/python.Dockerfile -t flagcx-p2p-python .                   an image that has it
#   docker build -f packaging/python.Dockerfile --target wheel --output target/wheels .  the wheel alone
FROM rust:1.88-bookworm AS build
# The headers of libibverbs, and libclang, which reads them; pip. Debian keeps one version of each release only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev libibverbs-dev librdmacm-dev python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# The toolchain of the image, not the newest one.
ENV RUSTUP_TOOLCHAIN=1.88
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels ./python

FROM scratch AS wheel
COPY --from=build /wheels /

FROM debian:bookworm-slim
# libibverbs and its providers are found at run time; without a NIC they are not used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ibverbs-providers python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home flagcx
COPY --from=build /wheels /wheels
RUN python3 -m venv /opt/flagcx-p2p && /opt/flagcx-p2p/bin/pip install --no-cache-dir /wheels/*.whl
ENV PATH=/opt/flagcx-p2p/bin:$PATH
USER 10001
WORKDIR /home/flagcx
CMD ["flagcx-p2p", "doctor"]
