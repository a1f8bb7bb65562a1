//! Outputs on the wire: a destination alone, or an object with its options; on the command line a
//! destination with `,option=value` behind it.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::flow::Destination;
use crate::refusal::{Code, Refusal};
use crate::rule::{Dscp, Output, Ttl};

/// A number, or a word such as `keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// A number.
    Number(u64),
    /// A word.
    Word(String),
}

/// One output of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// `[SOURCE@]ADDRESS[:PORT][@INTERFACE]`.
    pub to: String,
    /// 1 to 255, `keep` or `decrement`.
    pub ttl: Option<Setting>,
    /// `keep`, or 0 to 63.
    pub dscp: Option<Setting>,
}

impl OutputSpec {
    /// The output this text means.
    pub(super) fn build(&self) -> Result<Output, Refusal> {
        let about = |r: Refusal| r.about(format_args!("output {}", self.to));
        let to = self.to.parse::<Destination>().map_err(about)?;
        let ttl = self.ttl.as_ref().map_or(Ok(Ttl::default()), ttl).map_err(about)?;
        let dscp = self.dscp.as_ref().map_or(Ok(Dscp::Keep), dscp).map_err(about)?;
        Ok(Output { to, ttl, dscp })
    }
}

pub(super) fn ttl(setting: &Setting) -> Result<Ttl, Refusal> {
    let number = |n: u64| u8::try_from(n).ok().and_then(NonZeroU8::new);
    match setting {
        Setting::Word(word) if word == "keep" => Ok(Ttl::Keep),
        Setting::Word(word) if word == "decrement" => Ok(Ttl::Decrement),
        Setting::Number(n) if number(*n).is_some() => Ok(number(*n).map_or(Ttl::Keep, Ttl::Set)),
        Setting::Word(_) | Setting::Number(_) => Err(Refusal::new(
            Code::Invalid,
            format!("ttl = {setting} is not a time to live"),
            "use a number from 1 to 255, keep or decrement",
        )),
    }
}

pub(super) fn dscp(setting: &Setting) -> Result<Dscp, Refusal> {
    match setting {
        Setting::Word(word) if word == "keep" => Ok(Dscp::Keep),
        Setting::Number(n @ 0..=63) => Ok(Dscp::Set(*n as u8)),
        Setting::Word(_) | Setting::Number(_) => Err(Refusal::new(
            Code::Invalid,
            format!("dscp = {setting} is not a code point"),
            "use keep, or a number from 0 to 63 (46 is expedited forwarding)",
        )),
    }
}

impl From<&Output> for OutputSpec {
    fn from(output: &Output) -> Self {
        let ttl = match output.ttl {
            ttl if ttl == Ttl::default() => None,
            Ttl::Set(ttl) => Some(Setting::Number(ttl.get().into())),
            Ttl::Keep => Some(Setting::Word("keep".into())),
            Ttl::Decrement => Some(Setting::Word("decrement".into())),
        };
        let dscp = match output.dscp {
            Dscp::Keep => None,
            Dscp::Set(dscp) => Some(Setting::Number(dscp.into())),
        };
        Self { to: output.to.to_string(), ttl, dscp }
    }
}

/// The command line's form: `239.10.1.1:6000@eth1,ttl=16,dscp=46`.
impl FromStr for OutputSpec {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut parts = text.split(',');
        let mut spec = Self { to: parts.next().unwrap_or_default().into(), ttl: None, dscp: None };
        for part in parts {
            let slot = match part.split_once('=') {
                Some(("ttl", value)) => (&mut spec.ttl, value),
                Some(("dscp", value)) => (&mut spec.dscp, value),
                Some(_) | None => {
                    return Err(Refusal::new(
                        Code::Invalid,
                        format!("output {text}: {part:?} is not an option"),
                        "use ,ttl=N or ,dscp=N behind the interface",
                    ));
                }
            };
            if slot.0.is_some() {
                return Err(Refusal::new(
                    Code::Invalid,
                    format!("output {text}: {part:?} repeats an option"),
                    "give each option once",
                ));
            }
            *slot.0 = Some(slot.1.parse().unwrap_or_else(|never| match never {}));
        }
        Ok(spec)
    }
}

impl fmt::Display for OutputSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to)?;
        for (option, setting) in [("ttl", &self.ttl), ("dscp", &self.dscp)] {
            if let Some(setting) = setting {
                write!(f, ",{option}={setting}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Setting {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| plain);
        Ok(number.map_or_else(|| Self::Word(text.into()), Self::Number))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// The object form, whose derive names an unknown or missing field.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputObject {
    to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<Setting>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dscp: Option<Setting>,
}

impl Serialize for OutputSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { to, ttl, dscp } = self.clone();
        if ttl.is_none() && dscp.is_none() {
            return to.serialize(serializer);
        }
        OutputObject { to, ttl, dscp }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OutputSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = OutputSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an output: \"239.10.1.1:6000@eth1\" or { to = \"...\", ttl = 16 }")
            }

            fn visit_str<E: Error>(self, to: &str) -> Result<OutputSpec, E> {
                Ok(OutputSpec { to: to.into(), ttl: None, dscp: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OutputSpec, A::Error> {
                let object = OutputObject::deserialize(MapAccessDeserializer::new(map))?;
                let OutputObject { to, ttl, dscp } = object;
                Ok(OutputSpec { to, ttl, dscp })
            }
        }

        deserializer.deserialize_any(Form)
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Word(word) => serializer.serialize_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl Visitor<'_> for Form {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a word such as \"keep\"")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Setting, E> {
                Ok(Setting::Number(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Setting, E> {
                u64::try_from(number)
                    .map(Setting::Number)
                    .map_err(|_| E::custom(format!("{number} is negative")))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Setting, E> {
                Ok(Setting::Word(word.into()))
            }
        }

        deserializer.deserialize_any(Form)
    }
}
