# option: build-arg=http_proxy=http://p:1
# option: build-arg=NO_PROXY=local
FROM alpine:3.20
RUN one
ARG http_proxy
RUN two
