//! [`Platform`]: operating system and processor.

use std::fmt;
use std::str::FromStr;

/// A platform as in image-spec `image-index.md`, in normal form (`x86_64` is `amd64`, `arm64/v8` is `arm64`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    /// Processor, in Go's names (`amd64`).
    pub architecture: String,
    /// Operating system, in Go's names (`linux`).
    pub os: String,
    /// Version of the operating system; Windows only.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system; Windows only.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the processor (`v7`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// The text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected os/architecture[/variant], such as `linux/amd64`")]
pub struct ParsePlatformError(String);

impl Platform {
    /// A platform in normal form.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        // The same table as containerd's platforms package.
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("i386", _) => ("386".to_owned(), None),
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64".to_owned(), None),
            ("x86_64" | "x86-64", _) => ("amd64".to_owned(), variant),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "v8.0")) => ("arm64".to_owned(), None),
            ("aarch64" | "arm64", Some("9" | "v9" | "v9.0")) => ("arm64".to_owned(), Some("v9".to_owned())),
            ("aarch64", _) => ("arm64".to_owned(), variant),
            ("armel", _) => ("arm".to_owned(), Some("v6".to_owned())),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm".to_owned(), Some("v7".to_owned())),
            ("arm", Some(digit @ ("5" | "6" | "8"))) => ("arm".to_owned(), Some(format!("v{digit}"))),
            _ => (architecture, variant),
        };
        Self { architecture, os, os_version: None, os_features: Vec::new(), variant }
    }

    /// The platform that this program was compiled for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }

    /// Says how well an image for `self` runs where `wanted` is asked for: 0 is exact, larger is worse, `None` is not
    /// at all. An older arm variant runs on a newer one; an image without variant runs anywhere of its architecture.
    pub fn distance(&self, wanted: &Self) -> Option<u32> {
        let have = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        if have.os != wanted.os || have.architecture != wanted.architecture {
            return None;
        }
        if have.variant == wanted.variant {
            return Some(0);
        }
        let level = |variant: &Option<String>| match (have.architecture.as_str(), variant.as_deref()) {
            ("amd64", None) => Some(1),
            ("arm64", None) => Some(8),
            (_, Some(variant)) => variant.strip_prefix('v')?.split('.').next()?.parse::<u32>().ok(),
            _ => None,
        };
        match (level(&have.variant), level(&wanted.variant)) {
            (Some(have), Some(wanted)) if have <= wanted => Some(wanted - have),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePlatformError(text.to_owned());
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return Err(error());
        }
        let host = Self::host();
        match parts[..] {
            ["local"] => Ok(host),
            [one]
                if ["linux", "windows", "darwin", "macos", "freebsd", "wasi"]
                    .contains(&one.to_lowercase().as_str()) =>
            {
                Ok(Self::new(one, &host.architecture, host.variant.as_deref()))
            }
            [one] => {
                let known = ["amd64", "x86_64", "x86-64", "386", "i386", "arm", "armhf", "armel", "arm64", "aarch64"];
                let more = ["ppc64le", "s390x", "riscv64", "mips64le", "loong64", "wasm"];
                if known.iter().chain(&more).any(|name| name.eq_ignore_ascii_case(one)) {
                    Ok(Self::new(&host.os, one, None))
                } else {
                    Err(error())
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().expect(text)
    }

    #[test]
    fn platforms_are_normalised() {
        for (input, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("macos/arm64", "darwin/arm64"),
        ] {
            assert_eq!(platform(input).to_string(), expected);
            assert_eq!(platform(expected).to_string(), expected, "display parses to itself");
        }
        assert_eq!(platform("local"), Platform::host());
        for bad in ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn older_variants_run_on_newer_processors_only() {
        let far = |have: &str, wanted: &str| platform(have).distance(&platform(wanted));
        assert_eq!(far("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(far("linux/arm/v6", "linux/arm/v7"), Some(1));
        assert_eq!(far("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(far("linux/amd64", "linux/amd64/v3"), Some(2));
        assert_eq!(far("linux/arm64", "linux/amd64"), None);
        assert_eq!(far("windows/amd64", "linux/amd64"), None);
    }
}
