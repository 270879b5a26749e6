# One image per binary: from scratch, non-root, holding the static binary and the CA roots, nothing else.
#
#   docker build --build-arg BIN=shop-api -t shop-api .        builds it in here (BIN: shop-api, shop-worker or shop-operator)
#   cargo xtask images                                         target `prebuilt`: takes what cargo built on the host
#
# The stage for binaries from the host stands before the one that compiles: Docker's classic builder (without BuildKit) runs
# every stage up to its target, needed or not.
ARG BIN=shop-api

FROM scratch AS base
# Trust for MongoDB, Redis, SQS and SES over TLS. The clients read the system's bundle, which is looked for here.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532

# An ENTRYPOINT takes no variables, hence a stage for each name.
FROM base AS shop-api
# Huge pages make a thousand open connections take 30 MB instead of 20: the pod's memory limit counts them whole.
ENV MIMALLOC_ALLOW_THP=0
EXPOSE 3000 9090
ENTRYPOINT ["/shop-api"]

FROM base AS shop-worker
EXPOSE 9090
ENTRYPOINT ["/shop-worker"]

FROM base AS shop-operator
EXPOSE 9090
ENTRYPOINT ["/shop-operator"]

# The build context is a folder with the binary and etc/ssl/certs/ca-certificates.crt.
FROM ${BIN} AS prebuilt
COPY . /

FROM rust:1.95.0-bookworm AS build
ARG BIN
# The image has this very toolchain; the file asks for lint components on top.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package "${BIN}" && \
    mkdir -p /image/etc/ssl/certs && \
    cp target/*/release/"${BIN}" /image/ && \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM ${BIN}
COPY --from=build /image /
