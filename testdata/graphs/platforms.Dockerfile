# option: platform=linux/arm64
# option: names=platform
FROM --platform=$BUILDPLATFORM alpine:3.20 AS build
ARG TARGETARCH
RUN GOARCH=$TARGETARCH make
FROM alpine:3.20
COPY --from=build /app /app
