//! Random instructions that have files, and commands that write what they see.

use std::fmt::Write as _;

use super::dice::Dice;
use super::project::{CLOCK, Places, Project};

const SOURCES: &str = "src src/ src/. src/a src/a* src/sub lib lib/* . ./ top* */a src/?  [st]* lib/link src/sub/x data data/* */* src/link p.tar* ";
const TARGETS: &str = "/d/ /d/e/ /e/ /e/f/ /w/ /w/old/ / /d/sub/ rel/ . /link/ /d/deep/er/";
const EXCLUDED: &str = "a */a **/x sub src/sub lib/** !src/a *.log b **/* src";
const MODES: &str = "644 0755 700 u+x,g-r a=r u=rwX,go=rX +t";
const OWNERS: &str = "1:2 app app:extra :extra 7 0:0";
const SEEN: &str = "/d /e /w / /o /d/sub /link /d/src";

impl Project {
    /// An instruction that takes from elsewhere, where that is what changes.
    pub(super) fn fetch(&self, dice: &mut Dice, stage: usize) -> Option<String> {
        let Places { other, page, upstream, fetches, .. } = &self.places;
        let target = dice.word(TARGETS);
        match (fetches, other) {
            (true, _) => Some(match dice.below(4) {
                0 => format!("COPY --from=layout . {target}"),
                1 => format!("ADD {upstream}#main {target}"),
                _ => format!("ADD {page} {target}"),
            }),
            (false, Some(other)) if self.can_run(stage) && dice.chance(60) => {
                let mount = format!("RUN --mount=type=bind,from={other},target=/seen");
                Some(format!("{mount} cat /seen/a /seen/sub/b > /o/{}", dice.below(1000)))
            }
            (false, Some(other)) => Some(format!("COPY --from={other} . {target}")),
            (false, None) => None,
        }
    }

    pub(super) fn copy(&self, dice: &mut Dice, stage: usize) -> String {
        let mut flags = String::new();
        if dice.chance(20) {
            let _ = write!(flags, "--chown={} ", dice.word(OWNERS));
        }
        if dice.chance(15) {
            let _ = write!(flags, "--chmod={} ", dice.word(MODES));
        }
        if dice.chance(15) {
            flags += "--link ";
        }
        for _ in 0..if dice.chance(20) { 1 + dice.below(2) } else { 0 } {
            let _ = write!(flags, "--exclude={} ", dice.word(EXCLUDED));
        }
        let target = dice.word(TARGETS);
        match dice.below(20) {
            0..4 if stage > 0 => {
                let from = dice.below(stage);
                format!("COPY --from=s{from} {flags}{} {target}", dice.word("/d /d/* /o* /e* /w /o/ /link* /d/sub*"))
            }
            4 | 5 => format!("COPY --from=named {flags}{} {target}", dice.word(". a* sub */* [a-c]")),
            6 => format!("COPY {flags}<<a <<b {target}\ntext {}\na\n$X\nb", dice.below(3)),
            7 if dice.chance(70) => format!("ADD {flags}{} {target}", dice.word("p.tar src p.* .")),
            7 | 8 if !flags.contains("exclude") => {
                if dice.chance(20) {
                    let _ = write!(flags, "--checksum={} ", checksum(dice));
                }
                format!("ADD {flags}{} {target}", self.places.page)
            }
            9 if !flags.contains("exclude") => {
                format!("COPY --parents {flags}{} {target}", dice.word("src/./**/x */a src/sub"))
            }
            10 if !flags.contains("exclude") => {
                format!(
                    "ADD {flags}{}{} {target}",
                    self.places.upstream,
                    dice.pick(&["", "#main", "#main:sub", "?branch=main&subdir=sub"])
                )
            }
            11 | 12 if let Some(other) = &self.places.other => {
                format!("COPY --from={other} {flags}{} {target}", dice.word(". a* /sub"))
            }
            11 => format!("COPY --from=layout {flags}{} {target}", dice.word(". a* /sub")),
            12 => format!("COPY {flags}{} {} {target}", dice.word(SOURCES), dice.word(SOURCES)),
            _ => format!("COPY {flags}{} {target}", dice.word(SOURCES)),
        }
    }

    fn mount(&self, dice: &mut Dice, stage: usize) -> String {
        let more = dice.pick(&["", "", ",rw"]);
        match dice.below(10) {
            0..3 => format!("--mount=type=bind,source={},target=/seen{more}", dice.word("src src/sub lib . data")),
            3 | 4 if stage > 0 => {
                let from = dice.below(stage);
                format!("--mount=type=bind,from=s{from},source={},target=/seen{more}", dice.word("/o /d / /w /e"))
            }
            3 | 4 if let Some(other) = &self.places.other => {
                format!("--mount=type=bind,from={other},source={},target=/seen{more}", dice.word("/ sub"))
            }
            3..6 => format!("--mount=type=bind,from=named,target=/seen{more}"),
            // The same step for two platforms is at the same file at the same time.
            6 => format!("--mount=type=cache,id={},target=/cache,sharing=locked", dice.word("one two")),
            7 => format!("--mount=type=tmpfs,target=/seen{}", dice.pick(&["", ",size=1m"])),
            8 => format!("--mount=type=secret,id={}", dice.pick(&["hashed", "dated"])),
            _ => "--mount=type=secret,id=plain".to_owned(),
        }
    }

    /// A command that sees what is in no key; its result does not last.
    pub(super) fn look_at_the_clock(dice: &mut Dice) -> String {
        let life = dice.pick(&["# cache=1s\n", "# cache=1s\n", "# cache=0s\n", ""]);
        format!("{life}RUN {CLOCK} cat /run/secrets/clock > /o/{}", dice.below(1000))
    }

    /// A command that writes what it sees.
    pub(super) fn run(&self, dice: &mut Dice, stage: usize) -> String {
        let out = format!("/o/{}", dice.below(1000));
        let count = [0, 0, 0, 1, 1, 2][dice.below(6)];
        let mut mounts: Vec<String> = (0..count).map(|_| self.mount(dice, stage)).collect();
        if mounts.iter().filter(|mount| mount.contains("/seen")).count() > 1 {
            mounts.pop();
        }
        let has = |what: &str| mounts.iter().any(|mount| mount.contains(what));
        let look = |at: &str| {
            let not = "\\( -path /proc -o -path /sys -o -path /dev -o -path /cache -o -path /run -o -path /etc/hosts -o -path /etc/resolv.conf \\) -prune -o";
            format!(
                "x=$({{ find {at} {not} -exec stat -c '%N %a %u %g %F' {{}} +; find {at} {not} -type f -exec sha256sum {{}} +; }} 2>&1 | sort); echo \"$x\" > {out}; true"
            )
        };
        let command = match () {
            () if has("/seen") => look("/seen"),
            () if has("hashed") => format!("cat /run/secrets/hashed > {out}"),
            () if has("dated") => format!("cat /run/secrets/dated > {out}"),
            () if has("/cache") => format!("f=/cache/${{##*/}}; echo {} > $f; cat $f > {out}; rm $f", dice.below(3))
                .replace("${##*/}", &out[3..]),
            () if has("plain") => format!("test -s /run/secrets/plain; echo ok > {out}"),
            () => match dice.below(18) {
                0..3 => look(dice.word(SEEN)),
                3..6 => format!("env | grep -v -i _proxy | sort > {out}; true"),
                6 => format!("env | sort > {out}; true").replace("env | sort", "echo $HTTP_PROXY$X"),
                7 => format!("{{ id; pwd; umask; }} > {out}; true"),
                8 => format!("cat /d/* /d/src/* 2>/dev/null | grep -v '^#' > {out}; true"),
                9 => format!("cat /o/* /d/* 2>/dev/null | wc -c > {out}; true"),
                10 => dice.pick(&["rm -rf /d/a*; true", "rm -rf /d; true", "rm -f /o/1*; true"]).to_owned(),
                11 => dice.pick(&["mkdir -p /e/f; true", "mkdir -m 700 -p /d/deep; true", "true"]).to_owned(),
                12 => "mv /d /e 2>/dev/null; ln -s e /link 2>/dev/null; true".to_owned(),
                13 => dice
                    .pick(&[
                        "chmod -R go-rx /d /w 2>/dev/null; true",
                        "chown 5:6 /d /o/* 2>/dev/null; true",
                        "chmod 755 /d/* /o/* 2>/dev/null; true",
                    ])
                    .to_owned(),
                14 => "for f in /d/a /d/src/a; do ln $f $f.hard 2>/dev/null; done; true".to_owned(),
                15 => {
                    return format!(
                        "RUN {}<<E\nwc -c /d/* /o/* > {out} 2>/dev/null\necho {} >> {out}\ntrue\nE",
                        joined(&mounts),
                        dice.below(3)
                    );
                }
                _ => format!("echo {} > {out}", dice.below(4)),
            },
        };
        format!("RUN {}{command}", joined(&mounts))
    }
}

/// The digest of a page, in one of the algorithms.
fn checksum(dice: &mut Dice) -> String {
    let page = super::world::page_text(dice.below(2));
    match dice.below(3) {
        0 => {
            let sum = crate::cache_lies::filter("sha512sum", "-", page.as_bytes());
            format!("sha512:{}", String::from_utf8_lossy(&sum[..128]))
        }
        _ => format!("sha256:{}", crate::inline_cache::sha256(page.as_bytes())),
    }
}

fn joined(mounts: &[String]) -> String {
    mounts.iter().map(|mount| format!("{mount} ")).collect()
}
