//! Owns the invented data of the plugin `fake-data`: a part of the names of the faker library. Must not know users.

use rand::seq::IndexedRandom;

/// The longest text made, in words.
const WORDS: [&str; 24] = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "tempor",
    "incididunt",
    "labore",
    "magna",
    "aliqua",
    "enim",
    "minim",
    "veniam",
    "quis",
    "nostrud",
    "ullamco",
    "laboris",
    "nisi",
    "aliquip",
    "commodo",
];
const FIRST: [&str; 16] = [
    "Ada", "Ben", "Clara", "David", "Elena", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Katia",
    "Liam", "Mara", "Nils", "Olga", "Paul",
];
const LAST: [&str; 16] = [
    "Adler", "Baker", "Cohen", "Duarte", "Evans", "Fischer", "Garcia", "Hansen", "Ito", "Jensen",
    "Keller", "Lopez", "Moreau", "Novak", "Okafor", "Petrov",
];
const CITIES: [&str; 10] = [
    "Aarhus", "Boston", "Cairo", "Dublin", "Essen", "Fresno", "Geneva", "Haifa", "Izmir", "Jakarta",
];
const COUNTRIES: [&str; 10] = [
    "Austria", "Brazil", "Canada", "Denmark", "Egypt", "France", "Ghana", "Hungary", "India",
    "Japan",
];
const STREETS: [&str; 8] = [
    "Main Street",
    "Mill Lane",
    "Park Avenue",
    "Church Road",
    "High Street",
    "Station Road",
    "Lake View",
    "Oak Drive",
];
const JOBS: [&str; 8] = [
    "Senior Accountability Manager",
    "Product Data Analyst",
    "Lead Mobility Architect",
    "Central Markets Agent",
    "Internal Brand Designer",
    "Regional Security Officer",
    "Global Tactics Planner",
    "Direct Metrics Engineer",
];
const COLORS: [&str; 10] = [
    "red",
    "green",
    "blue",
    "yellow",
    "purple",
    "mint green",
    "teal",
    "white",
    "black",
    "orange",
];
const ADJECTIVES: [&str; 6] = [
    "Small",
    "Ergonomic",
    "Rustic",
    "Sleek",
    "Handmade",
    "Refined",
];
const MATERIALS: [&str; 6] = ["Steel", "Wooden", "Cotton", "Granite", "Rubber", "Bronze"];
const GOODS: [&str; 6] = ["Chair", "Table", "Shoes", "Lamp", "Keyboard", "Towels"];

/// Names there are, and what the older version of the plugin called them.
pub(crate) const NAMES: [(&str, &str); 24] = [
    ("internetEmail", "randEmail"),
    ("personFullName", "randFullName"),
    ("personFirstName", "randFirstName"),
    ("personLastName", "randLastName"),
    ("internetUsername", "randUserName"),
    ("internetPassword", "randPassword"),
    ("stringUuid", "randUuid"),
    ("phoneNumber", "randPhoneNumber"),
    ("locationCity", "randCity"),
    ("locationCountry", "randCountry"),
    ("locationStreetAddress", "randStreetAddress"),
    ("locationZipCode", "randZipCode"),
    ("companyName", "randCompanyName"),
    ("numberInt", "randNumber"),
    ("datatypeBoolean", "randBoolean"),
    ("internetUrl", "randUrl"),
    ("internetIpv4", "randIp"),
    ("loremWord", "randWord"),
    ("loremSentence", "randSentence"),
    ("loremParagraph", "randParagraph"),
    ("loremText", "randText"),
    ("personJobTitle", "randJobTitle"),
    ("colorHuman", "randColor"),
    ("commerceProductName", "randProductName"),
];

/// What the plugin's options say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// Bounds of `numberInt`, both included.
    pub(crate) int: (i64, i64),
}

impl Default for Options {
    fn default() -> Options {
        Options {
            int: (0, 9_007_199_254_740_991),
        }
    }
}

/// Whether `$name()` is one of them.
pub(crate) fn is_known(name: &str) -> bool {
    let name = name.trim_start_matches('$');
    NAMES.iter().any(|(new, old)| *new == name || *old == name)
}

fn one(list: &[&str]) -> String {
    let chosen = list.choose(&mut rand::rng());
    (*chosen.unwrap_or(&"")).to_owned()
}

fn digits(count: usize) -> String {
    let digit = |_| char::from(b'0' + rand::random_range(0..10_u8));
    (0..count).map(digit).collect()
}

fn words(count: usize) -> String {
    let all: Vec<String> = (0..count).map(|_| one(&WORDS)).collect();
    all.join(" ")
}

fn sentence() -> String {
    let text = words(rand::random_range(4..=9));
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

fn paragraph() -> String {
    let all: Vec<String> = (0..3).map(|_| sentence()).collect();
    all.join(" ")
}

/// An invented value; none for a name that is not known.
pub(crate) fn draw(name: &str, options: &Options) -> Option<String> {
    let name = name.trim_start_matches('$');
    let (name, _) = NAMES
        .iter()
        .find(|(new, old)| *new == name || *old == name)?;
    let user = || format!("{}_{}{}", one(&FIRST), one(&LAST), digits(2));
    Some(match *name {
        "internetEmail" => format!("{}@example.com", user().to_lowercase()),
        "personFullName" => format!("{} {}", one(&FIRST), one(&LAST)),
        "personFirstName" => one(&FIRST),
        "personLastName" => one(&LAST),
        "internetUsername" => user(),
        "internetPassword" => crate::artillery::template::letters(15),
        "stringUuid" => crate::artillery::template::uuid(),
        "phoneNumber" => format!("555-{}-{}", digits(3), digits(4)),
        "locationCity" => one(&CITIES),
        "locationCountry" => one(&COUNTRIES),
        "locationStreetAddress" => format!("{} {}", rand::random_range(1..200), one(&STREETS)),
        "locationZipCode" => digits(5),
        "companyName" => format!(
            "{} {}",
            one(&LAST),
            one(&["Inc", "LLC", "and Sons", "Group"])
        ),
        "numberInt" => {
            let (a, b) = options.int;
            rand::random_range(a.min(b)..=a.max(b)).to_string()
        }
        "datatypeBoolean" => rand::random::<bool>().to_string(),
        "internetUrl" => format!("https://{}-{}.example/", one(&WORDS), one(&WORDS)),
        "internetIpv4" => {
            let [a, b, c, d] = rand::random::<u32>().to_be_bytes();
            format!("{a}.{b}.{c}.{d}")
        }
        "loremWord" => one(&WORDS),
        "loremSentence" => sentence(),
        "loremParagraph" | "loremText" => paragraph(),
        "personJobTitle" => one(&JOBS),
        "colorHuman" => one(&COLORS),
        _ => format!("{} {} {}", one(&ADJECTIVES), one(&MATERIALS), one(&GOODS)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_gives_something() {
        for (new, old) in NAMES {
            for name in [new, old] {
                assert!(is_known(&format!("${name}")), "{name}");
                let drawn = draw(&format!("${name}"), &Options::default());
                assert!(!drawn.unwrap_or_default().is_empty(), "{name}");
            }
        }
        assert_eq!(draw("$nix", &Options::default()), None);
        let options = Options { int: (3, 3) };
        assert_eq!(draw("numberInt", &options).as_deref(), Some("3"));
    }
}
