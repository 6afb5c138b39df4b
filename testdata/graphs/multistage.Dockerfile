# option: target=final
FROM alpine:3.20 AS build
WORKDIR /src
COPY . .
RUN make

FROM alpine:3.20 AS unused
RUN false

FROM scratch AS final
COPY --from=build /src/app /app
COPY --from=0 /src/doc /doc
COPY --from=other:1 /etc/motd /motd
ENTRYPOINT ["/app"]
