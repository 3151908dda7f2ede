//! Names and quantities as Kubernetes takes them. Must not know objects.

/// Letters of the name of an object that has a service, as DNS has it.
///
/// Source: RFC 1123, and RFC 1035 for services and KServe's objects, whose names begin with a letter.
pub(super) fn check_name(name: &str, most: usize) -> Result<(), String> {
    let good = name.len() <= most
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if good {
        return Ok(());
    }
    Err(format!(
        "`{}` is no name: expected at most {most} small letters, digits and `-`, the first a letter and the last no \
         `-`, as in {}",
        name.escape_debug(),
        name_from(name, most)
    ))
}

/// The name of a namespace, a secret or an account: labels of DNS, apart by dots where `dots` says so.
pub(super) fn check_label(name: &str, dots: bool) -> Result<(), String> {
    let is_label = |label: &str| {
        let edge = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        !label.is_empty()
            && label.len() <= 63
            && label.starts_with(edge)
            && label.ends_with(edge)
            && label.chars().all(|letter| edge(letter) || letter == '-')
    };
    let good = if dots { name.len() <= 253 && name.split('.').all(is_label) } else { is_label(name) };
    if good {
        return Ok(());
    }
    let dot = if dots { ", `.`" } else { "" };
    Err(format!(
        "`{}` is no name: expected small letters, digits{dot} and `-`, the first and the last a letter or a digit",
        name.escape_debug()
    ))
}

/// A name for objects that is made of any text: `Qwen3_8B.v1` is `qwen3-8b-v1`. Never empty.
pub(super) fn name_from(text: &str, most: usize) -> String {
    let mut name = String::new();
    for letter in text.chars().take(1000) {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_lowercase() || (letter.is_ascii_digit() && !name.is_empty()) {
            name.push(letter);
        } else if letter.is_ascii_digit() {
            name.push_str("m-");
            name.push(letter);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(most);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "model".to_owned() } else { name.to_owned() }
}

/// A label's value that is made of any text: at most 63 letters, digits, `-`, `_` and `.`, `between` for the others.
pub(super) fn label_from(text: &str, between: char) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let value: String =
        text.trim().chars().map(|letter| if fits(letter) { letter } else { between }).take(63).collect();
    value.trim_matches(|letter: char| !letter.is_ascii_alphanumeric()).to_owned()
}

/// A quantity of a resource, as Kubernetes reads it: `4`, `500m`, `16Gi`, `1e3`; nothing below zero.
///
/// Source: k8s.io/apimachinery, `resource.ParseQuantity`.
pub(super) fn check_quantity(text: &str) -> Result<(), String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits).unwrap_or((text, ""));
    let is_number = number.bytes().any(|byte| byte.is_ascii_digit())
        && number.bytes().filter(|byte| *byte == b'.').count() <= 1
        && number.len() <= 18;
    let is_exponent = || {
        let exponent = suffix.strip_prefix(['e', 'E']).unwrap_or_default();
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        (1..=2).contains(&exponent.len()) && exponent.bytes().all(|byte| byte.is_ascii_digit())
    };
    let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if is_number && (units.contains(&suffix) || is_exponent()) {
        return Ok(());
    }
    Err(format!(
        "`{}` is no quantity: expected a number with a unit, as in 4, 500m or 16Gi",
        text.escape_debug()
    ))
}

/// What a quantity that [`check_quantity`] takes amounts to, to be compared with another.
pub(super) fn amount(text: &str) -> f64 {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits).unwrap_or((text, ""));
    let number: f64 = number.parse().unwrap_or(0.0);
    let units: [(&str, f64); 16] = [
        ("", 1.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
    ];
    match units.iter().find(|(unit, _)| *unit == suffix) {
        Some((_, factor)) => number * factor,
        // An exponent, `1e3`.
        None => text.parse().unwrap_or(number),
    }
}

/// A quantity of memory in bytes, rounded up.
pub(super) fn bytes(text: &str) -> u64 {
    // A float that is too large for the type becomes its largest value, and there is nothing below zero.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = amount(text).ceil() as u64;
    bytes
}

/// `bytes` in GiB, rounded up: `17Gi`.
pub(super) fn gibibytes(bytes: u64) -> String {
    format!("{}Gi", bytes.div_ceil(1 << 30).max(1))
}

/// `bytes` in MB, for people.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_and_checked() {
        for (text, name) in [
            ("qwen3-8b", "qwen3-8b"),
            ("Qwen3_8B.v1", "qwen3-8b-v1"),
            ("01-yi", "m-01-yi"),
            ("--", "model"),
            ("", "model"),
            ("ü", "model"),
            ("a/", "a"),
        ] {
            assert_eq!(name_from(text, 40), name);
            assert_eq!(check_name(name, 40), Ok(()));
        }
        assert_eq!(name_from(&"a-".repeat(50), 40).len(), 39);
        for bad in ["", "A", "a_b", "-a", "a-", "1a", "a.b", "a b", &"a".repeat(64)] {
            assert!(check_name(bad, 63).is_err(), "{bad}");
        }
        for (name, dots, good) in [
            ("default", false, true),
            ("1a", false, true),
            ("a.b", true, true),
            ("a.b", false, false),
            ("a..b", true, false),
        ] {
            assert_eq!(check_label(name, dots).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn quantities_are_compared() {
        for (less, more) in [
            ("500m", "1"),
            ("1", "1.5"),
            ("8G", "8Gi"),
            ("8Gi", "9G"),
            ("1023Ki", "1Mi"),
            ("1e3", "2k"),
            ("1Gi", "8Gi"),
        ] {
            assert!(amount(less) < amount(more), "{less} {more}");
        }
    }

    #[test]
    fn quantities_are_bytes() {
        for (text, expected) in
            [("0", 0), ("0Gi", 0), ("1", 1), ("500m", 1), ("2Gi", 2 << 30), ("1e3", 1000), ("99E", u64::MAX)]
        {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn labels_are_made_as_the_vendors_make_them() {
        assert_eq!(label_from("NVIDIA H100 80GB HBM3", '-'), "NVIDIA-H100-80GB-HBM3");
        assert_eq!(label_from("AMD Instinct MI300X OAM", '_'), "AMD_Instinct_MI300X_OAM");
        assert_eq!(label_from("(x)", '-'), "x");
    }

    #[test]
    fn quantities() {
        for good in ["4", "0.5", "500m", "16Gi", "1e3", "1E-3", "12Mi", ".5", "5."] {
            assert_eq!(check_quantity(good), Ok(()), "{good}");
        }
        for bad in ["", "Gi", "1 Gi", "-1", "1gb", "1GiB", "1e", "1..2", ".", "١", "9999999999999999999"] {
            assert!(check_quantity(bad).is_err(), "{bad}");
        }
        assert_eq!(gibibytes(0), "1Gi");
        assert_eq!(gibibytes((1 << 30) + 1), "2Gi");
    }
}
