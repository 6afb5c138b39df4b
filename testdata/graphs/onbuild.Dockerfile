# option: build-arg=MODE=release
FROM onbuild:1 AS app
RUN own
