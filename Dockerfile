# syntax=docker/dockerfile:1
# Written with care and not built by us: no image builder was at hand. Build it and run `counterfoil --version` and
# `counterfoil demo` in it before you rely on it.
#
#   docker build -t counterfoil .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -v "$PWD/tickets:/project" -v counterfoil-state:/state -e KUSTOMER_API_KEY counterfoil extract
#
# The image holds the binary, certificates and nothing of yours: settings and policy are mounted at /project, keys come as
# files or from a key service. The project's folder has to be writable for user 65532 where the lake lies in it.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# One cache of downloaded crates and one of what is built, so that a change of ours does not build DataFusion anew.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin counterfoil \
    && strip -o /counterfoil target/release/counterfoil
# What is mounted over an empty folder of the image takes its owner.
RUN mkdir -p /empty/project /empty/state

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="counterfoil" \
      org.opencontainers.image.description="Ticket metadata from Kustomer, redacted, in encrypted Parquet" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build --chown=root:root --chmod=0755 /counterfoil /usr/local/bin/counterfoil
COPY --from=build --chown=65532:65532 /empty/ /
ENV XDG_STATE_HOME=/state \
    TMPDIR=/tmp
USER 65532:65532
WORKDIR /project
VOLUME ["/state"]
ENTRYPOINT ["/usr/local/bin/counterfoil"]
CMD ["--help"]
