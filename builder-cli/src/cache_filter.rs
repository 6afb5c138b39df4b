//! `--filter` of the build cache, as `docker buildx du` and `prune` have it.
//!
//! `KEY=VALUE`, `KEY!=VALUE`, `KEY~=EXPRESSION` (a regular expression), or a `KEY` that is true or there at all; several
//! with commas between them. Of ids the beginning is enough.

use builder_core::build::{CacheItem, CacheKind, ItemFilter};
use regex::Regex;

use crate::command_error::CommandError;
use crate::ui::units;

/// Everything that has to hold.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    filters: Vec<Filter>,
}

#[derive(Debug)]
struct Filter {
    key: &'static str,
    test: Test,
}

#[derive(Debug)]
enum Test {
    There,
    Is(String),
    IsNot(String),
    Matches(Regex),
    /// Not used since this time, in seconds since 1970.
    Before(i64),
}

const KEYS: [&str; 11] = [
    "id",
    "parents",
    "description",
    "type",
    "inuse",
    "mutable",
    "immutable",
    "shared",
    "private",
    "until",
    "unused-for",
];

/// Types that BuildKit knows and nothing here has.
const FOREIGN_TYPES: [&str; 2] = ["frontend", "internal"];

impl Filters {
    /// Reads the filters; unknown keys are errors.
    pub(crate) fn parse(given: &[String]) -> Result<Self, CommandError> {
        let filters = given.iter().flat_map(|text| pieces(text)).map(filter).collect::<Result<_, _>>()?;
        Ok(Self { filters })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether the parents of items have to be known.
    fn need_parents(&self) -> bool {
        self.filters.iter().any(|filter| filter.key == "parents")
    }

    /// Whether how steps are written has to be known.
    fn need_descriptions(&self) -> bool {
        self.filters.iter().any(|filter| filter.key == "description")
    }

    /// Takes out which types are named; of several one is enough, as no item has two.
    pub(crate) fn take_types(&mut self) -> Vec<CacheKind> {
        let is_type = |filter: &Filter| match &filter.test {
            Test::Is(name) if filter.key == "type" => CacheKind::ALL.into_iter().find(|kind| kind.name() == name),
            _ => None,
        };
        let kinds = self.filters.iter().filter_map(is_type).collect();
        self.filters.retain(|filter| is_type(filter).is_none());
        kinds
    }

    /// Whether items count only if they were not used for some time.
    pub(crate) fn has_time(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter.test, Test::Before(_)))
    }

    /// The filters for a policy; none if there are none.
    pub(crate) fn for_policy(self) -> Option<ItemFilter> {
        let (parents, descriptions) = (self.need_parents(), self.need_descriptions());
        let some = !self.is_empty();
        some.then(|| ItemFilter::new(move |item| self.match_item(item), parents, descriptions))
    }

    /// Whether every filter lets the item through.
    pub(crate) fn match_item(&self, item: &CacheItem) -> bool {
        self.filters.iter().all(|filter| filter.matches(item))
    }
}

/// Cuts at commas after which another filter begins; other commas, and those in quotes, belong to a value.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        quoted ^= c == '"';
        if c == ',' && !quoted && begins_filter(&text[at + 1..]) {
            pieces.push(&text[start..at]);
            start = at + 1;
        }
    }
    pieces.push(&text[start..]);
    pieces
}

fn begins_filter(text: &str) -> bool {
    let (key, rest) = split(text.trim_start());
    KEYS.contains(&key) && (rest.is_empty() || rest.starts_with(['=', '!', '~', ',']))
}

/// The key, and what follows it.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(text.len()))
}

fn filter(text: &str) -> Result<Filter, CommandError> {
    let text = text.trim_start();
    let (key, rest) = split(text);
    let unknown = || {
        CommandError::usage(format!("unknown filter `{text}`")).with_hint(format!(
            "the filters of the build cache are {}; as `KEY=VALUE`, `KEY!=VALUE` or `KEY~=EXPRESSION`",
            KEYS.join(", ")
        ))
    };
    let key = KEYS.into_iter().find(|known| *known == key).ok_or_else(unknown)?;
    let value = |text: &str| {
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        inner.unwrap_or(text).to_owned()
    };
    let test = if rest.is_empty() {
        Test::There
    } else if let Some(rest) = rest.strip_prefix("!=") {
        Test::IsNot(value(rest))
    } else if let Some(rest) = rest.strip_prefix("~=") {
        let expression = Regex::new(&value(rest)).map_err(|error| {
            CommandError::usage(format!("filter `{text}` has no regular expression: {error}"))
                .with_hint("put a backslash before characters that mean something in expressions")
        })?;
        Test::Matches(expression)
    } else if let Some(rest) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        Test::Is(value(rest))
    } else {
        return Err(unknown());
    };
    let test = checked(key, test).map_err(|problem| problem.unwrap_or_else(unknown))?;
    Ok(Filter { key, test })
}

/// What the value of each key has to be; without a reason it is no filter at all.
fn checked(key: &str, test: Test) -> Result<Test, Option<CommandError>> {
    match (key, test) {
        ("until" | "unused-for", Test::Is(value)) => {
            units::until(&value).map(|time| Test::Before(time.as_second())).map_err(Some)
        }
        ("until" | "unused-for", _) => Err(None),
        ("type", Test::Is(value)) => {
            let names: Vec<&str> = CacheKind::ALL.iter().map(|kind| kind.name()).collect();
            if names.iter().chain(&FOREIGN_TYPES).any(|name| **name == value) {
                return Ok(Test::Is(value));
            }
            Err(Some(
                CommandError::usage(format!("unknown type `{value}`"))
                    .with_hint(format!("the types are {}", names.join(", "))),
            ))
        }
        ("inuse" | "mutable" | "immutable" | "shared" | "private", test) => match test {
            Test::There => Ok(Test::There),
            Test::Is(value) => flag(key, &value).map(|on| Test::Is(on.to_string())),
            Test::IsNot(value) => flag(key, &value).map(|on| Test::IsNot(on.to_string())),
            Test::Matches(_) | Test::Before(_) => Err(None),
        },
        (_, test) => Ok(test),
    }
}

fn flag(key: &str, value: &str) -> Result<bool, Option<CommandError>> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Some(CommandError::usage(format!("filter `{key}` is `true` or `false`, not `{value}`")))),
    }
}

impl Filter {
    fn matches(&self, item: &CacheItem) -> bool {
        let mutable = item.kind.is_mutable();
        let flag = match self.key {
            "id" => return self.names([item.id.as_str()]),
            "parents" => return self.names(item.parents.iter().map(String::as_str)),
            "description" => return self.says(&item.description),
            "type" => return self.says(item.kind.name()),
            "inuse" => item.in_use,
            "mutable" => mutable,
            "immutable" => !mutable,
            "shared" => item.shared,
            "private" => !item.shared,
            _ => return matches!(self.test, Test::Before(time) if item.last_used < time),
        };
        match &self.test {
            Test::There => flag,
            test => Self::says_of(test, if flag { "true" } else { "false" }),
        }
    }

    fn names<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> bool {
        let mut ids = ids.into_iter();
        match &self.test {
            Test::There => ids.next().is_some(),
            Test::Is(beginning) => ids.any(|id| id.starts_with(beginning)),
            Test::IsNot(beginning) => !ids.any(|id| id.starts_with(beginning)),
            Test::Matches(expression) => ids.any(|id| expression.is_match(id)),
            Test::Before(_) => false,
        }
    }

    fn says(&self, text: &str) -> bool {
        Self::says_of(&self.test, text)
    }

    fn says_of(test: &Test, text: &str) -> bool {
        match test {
            Test::There => !text.is_empty(),
            Test::Is(value) => text == value,
            Test::IsNot(value) => text != value,
            Test::Matches(expression) => expression.is_match(text),
            Test::Before(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_cut_at_commas_read_or_refused() {
        let check = |text: &str, expected: &[&str]| {
            let found = Filters::parse(&[text.to_owned()]).expect("valid").filters;
            let found: Vec<String> = found.iter().map(|filter| format!("{} {:?}", filter.key, filter.test)).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("id=ab", &["id Is(\"ab\")"]);
        check("id==ab", &["id Is(\"ab\")"]);
        check("type!=regular,shared", &["type IsNot(\"regular\")", "shared There"]);
        check("description~=a, b,c", &["description Matches(Regex(\"a, b,c\"))"]);
        check("description=\"a,shared\",inuse=0", &["description Is(\"a,shared\")", "inuse Is(\"false\")"]);
        check("type==regular, shared", &["type Is(\"regular\")", "shared There"]);
        check("description=a!=b", &["description Is(\"a!=b\")"]);
        check("type=internal", &["type Is(\"internal\")"]);
        check("parents", &["parents There"]);
        for wrong in [
            "color=red",
            "",
            "idx=1",
            "type=regulr",
            "until=yesterday",
            "until",
            "until!=1h",
            "shared=perhaps",
            "shared~=t",
            "description~=(",
            "id<3",
        ] {
            assert!(Filters::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
