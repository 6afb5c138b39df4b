FROM alpine:3.20
COPY a b /c/
WORKDIR /
RUN make "$X" '$X'
