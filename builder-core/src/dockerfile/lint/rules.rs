//! The rules as data.

/// When a rule is applied, and what its findings are called. All findings weigh the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// A warning, if someone asked for the rule by its name: rbuild's own, which BuildKit does not know.
    Own,
    /// A warning, if someone asked for the rule.
    Experimental,
    /// A warning.
    Warning,
}

impl Level {
    /// What a finding is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own | Self::Experimental | Self::Warning => "warning",
        }
    }
}

macro_rules! rules {
    ($($rule:ident $name:literal $page:literal $level:ident $text:literal)*) => {
        /// A rule of the checker. Names and addresses are BuildKit's (but for those of [`Level::Own`]), so `# check=skip=` means the same for both.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $text] $rule),*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &[Self] = &[$(Self::$rule),*];

            /// The name: `StageNameCasing`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$rule => $name),* }
            }

            /// What the rule asks for, as one sentence.
            pub fn text(self) -> &'static str {
                match self { $(Self::$rule => $text),* }
            }

            /// The page that explains it.
            pub fn url(self) -> Option<&'static str> {
                let url = match self {
                    $(Self::$rule => concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/")),*
                };
                // BuildKit names none for the one, and does not know the others.
                (self != Self::InvalidBaseImagePlatform && self.level() != Level::Own).then_some(url)
            }

            /// When it is applied.
            pub fn level(self) -> Level {
                match self { $(Self::$rule => Level::$level),* }
            }
        }
    };
}

rules! {
    StageNameCasing "StageNameCasing" "stage-name-casing" Warning
        "Stage names should be in lower case"
    FromAsCasing "FromAsCasing" "from-as-casing" Warning
        "The keyword `AS` should have the case of `FROM`"
    NoEmptyContinuation "NoEmptyContinuation" "no-empty-continuation" Warning
        "Continued lines should not have empty lines between them"
    ConsistentInstructionCasing "ConsistentInstructionCasing" "consistent-instruction-casing" Warning
        "All instructions should have one case, upper or lower"
    DuplicateStageName "DuplicateStageName" "duplicate-stage-name" Warning
        "Stage names should be unique"
    ReservedStageName "ReservedStageName" "reserved-stage-name" Warning
        "Stages should not be called `scratch` or `context`"
    JsonArgsRecommended "JSONArgsRecommended" "json-args-recommended" Warning
        "CMD and ENTRYPOINT should have the JSON form, so that signals reach the process"
    MaintainerDeprecated "MaintainerDeprecated" "maintainer-deprecated" Warning
        "A label should name the author instead of MAINTAINER"
    UndefinedArgInFrom "UndefinedArgInFrom" "undefined-arg-in-from" Warning
        "FROM should use declared arguments only"
    WorkdirRelativePath "WorkdirRelativePath" "workdir-relative-path" Warning
        "A relative WORKDIR should follow an absolute one of the same file"
    UndefinedVar "UndefinedVar" "undefined-var" Warning
        "Variables should be defined before they are used"
    MultipleInstructionsDisallowed "MultipleInstructionsDisallowed" "multiple-instructions-disallowed" Warning
        "A stage should have one CMD, ENTRYPOINT and HEALTHCHECK at most"
    LegacyKeyValueFormat "LegacyKeyValueFormat" "legacy-key-value-format" Warning
        "Keys and values should be joined with `=`, not with a blank"
    InvalidBaseImagePlatform "InvalidBaseImagePlatform" "invalid-base-image-platform" Warning
        "The base image should have the platform that is built"
    RedundantTargetPlatform "RedundantTargetPlatform" "redundant-target-platform" Warning
        "`FROM --platform=$TARGETPLATFORM` is the default"
    SecretsUsedInArgOrEnv "SecretsUsedInArgOrEnv" "secrets-used-in-arg-or-env" Warning
        "Secrets should not be in ARG or ENV, which stay in the image"
    InvalidDefaultArgInFrom "InvalidDefaultArgInFrom" "invalid-default-arg-in-from" Warning
        "FROM should name an image with the defaults of its arguments too"
    FromPlatformFlagConstDisallowed "FromPlatformFlagConstDisallowed" "from-platform-flag-const-disallowed" Warning
        "`FROM --platform` should not be a constant"
    CopyIgnoredFile "CopyIgnoredFile" "copy-ignored-file" Warning
        "What is copied should not be excluded by the ignore file"
    InvalidDefinitionDescription "InvalidDefinitionDescription" "invalid-definition-description" Experimental
        "A comment above a stage or an argument should begin with its name"
    HeredocNoErrexit "HeredocNoErrexit" "" Own
        "A here-document of RUN should end at its first failing command"
    SecretNotInKey "SecretNotInKey" "" Own
        "A step whose result is known should run again when its secret is another one"
    ExposeProtoCasing "ExposeProtoCasing" "expose-proto-casing" Warning
        "Protocols in EXPOSE should be in lower case"
    ExposeInvalidFormat "ExposeInvalidFormat" "expose-invalid-format" Warning
        "EXPOSE should have a port, without host address and host port"
}

impl Rule {
    /// Finds a rule by its name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// When BuildKit applies it: while it reads, to the stages, to their bases, to each instruction, to its sources.
    /// Rules that it does not know come last.
    pub(super) fn phase(self) -> u8 {
        match self {
            Self::NoEmptyContinuation => 0,
            Self::StageNameCasing => 1,
            Self::FromAsCasing => 2,
            Self::InvalidDefinitionDescription | Self::MaintainerDeprecated => 3,
            Self::ReservedStageName => 4,
            Self::DuplicateStageName => 5,
            Self::ConsistentInstructionCasing => 6,
            Self::InvalidDefaultArgInFrom => 7,
            Self::UndefinedArgInFrom => 8,
            Self::RedundantTargetPlatform => 9,
            Self::FromPlatformFlagConstDisallowed => 10,
            Self::InvalidBaseImagePlatform => 11,
            Self::WorkdirRelativePath
            | Self::UndefinedVar
            | Self::MultipleInstructionsDisallowed
            | Self::LegacyKeyValueFormat
            | Self::SecretsUsedInArgOrEnv
            | Self::JsonArgsRecommended
            | Self::ExposeProtoCasing
            | Self::ExposeInvalidFormat => 12,
            Self::CopyIgnoredFile => 13,
            Self::HeredocNoErrexit | Self::SecretNotInKey => 14,
        }
    }

    /// Whether it is about the file as a whole, so that `# check=` above one instruction changes nothing.
    pub(super) fn is_of_file(self) -> bool {
        matches!(
            self,
            Self::NoEmptyContinuation
                | Self::ConsistentInstructionCasing
                | Self::DuplicateStageName
                | Self::ReservedStageName
                | Self::InvalidDefaultArgInFrom
        )
    }
}
