# option: context=Named=directory
# option: context=alias=docker-image://alpine:3.20
FROM alpine:3.20
ARG WHO=app MODE=0640
ENV DIR=/opt
WORKDIR /w
COPY --chown=$WHO:$WHO --chmod=$MODE ["a.txt", "b c", "$DIR/"]
COPY --link --parents --exclude=*.md src/./x .
COPY <<one <<-"two" three /files/
$DIR \$DIR "quoted"
one
	$DIR
two
COPY --from=named /x /x
COPY --from=alias /x /y
COPY --from=scratch /none /none
ADD a.tar https://example.com/file.tgz git@github.com:moby/buildkit.git#v1 /d/
ADD --checksum=sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad --unpack=true https://example.com/x.tar /d
ADD --keep-git-dir=true --link https://github.com/moby/buildkit.git /git
COPY $UNSET ""
