# An image for Vault's containerized plugins, see docs/releases.md.
# Not built by this project's CI: there is no container engine.
#
#   docker build -t vault-plugin-mcp-oauth:0.1.0 .
#
# The base images are named by tag. Whoever publishes an image pins them by digest.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The flags of .goreleaser.yaml.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w -buildid=" \
    -o / ./cmd/vault-plugin-mcp-oauth ./cmd/mcp-token-proxy

# docker build --target mcp-token-proxy: the proxy for brokers, see docs/deployments.md.
FROM gcr.io/distroless/static-debian12:nonroot AS mcp-token-proxy
COPY --from=build /mcp-token-proxy /bin/mcp-token-proxy
ENTRYPOINT ["/bin/mcp-token-proxy"]

# With certificates of the public authorities, and without a shell. It runs as root inside the
# container, as Vault's documentation has it: an image with a user of its own needs IPC_LOCK on the
# binary where Vault locks memory, and a plugin runtime with -rootless under a rootless engine.
FROM gcr.io/distroless/static-debian12
COPY --from=build /vault-plugin-mcp-oauth /bin/vault-plugin-mcp-oauth
# The plugin's binary itself: Vault talks to process 1 of the container.
ENTRYPOINT ["/bin/vault-plugin-mcp-oauth"]
