//! Names of variables whose values are secrets, and values that can be one. Must not know where they stand.

/// What sort of secret a name says that its value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secret {
    /// What a machine made.
    Key,
    /// What a person may have made: it may be a number.
    Password,
    /// Something that is called a token; only a value that looks like a secret is one.
    Token,
}

/// Longest name that is looked at; what is longer is no variable.
pub(super) const NAME_MAX: usize = 64;

const PASSWORDS: [&str; 3] = ["PASSWORD", "PASSWD", "PASSPHRASE"];
const KEYS: [&str; 8] =
    ["API_KEY", "APIKEY", "ACCESS_KEY", "SECRET", "CREDENTIAL", "PRIVATE_KEY", "AUTH_KEY", "ACCOUNT_KEY"];
/// Names so ended say where a secret lies, or how it is used.
const ELSEWHERE: [&str; 21] = [
    "PATH",
    "PATHS",
    "FILE",
    "DIR",
    "URL",
    "NAME",
    "TYPE",
    "THRESHOLD",
    "BACKEND",
    "LENGTH",
    "LEN",
    "MIN",
    "MAX",
    "COUNT",
    "SIZE",
    "POLICY",
    "TTL",
    "TIMEOUT",
    "ENABLED",
    "REQUIRED",
    "REF",
];
/// Tokens that are pieces of text, not secrets.
const OF_TEXT: [&str; 19] = [
    "PAD", "BOS", "EOS", "UNK", "MASK", "SEP", "CLS", "IMAGE", "AUDIO", "VIDEO", "START", "STOP", "END",
    "NEXT", "SPECIAL", "TOOL", "DRAFT", "PER", "LAST",
];
/// Tokens that are secrets even in small letters, where most names of tokens are a model's settings.
const OF_SECRETS: [&str; 20] = [
    "HF",
    "FACE",
    "HUGGINGFACE",
    "HUGGINGFACEHUB",
    "HUB",
    "AUTH",
    "ACCESS",
    "API",
    "GITHUB",
    "GH",
    "GITLAB",
    "BEARER",
    "SESSION",
    "REFRESH",
    "IDENTITY",
    "REGISTRY",
    "NPM",
    "SLACK",
    "BOT",
    "VAULT",
];
/// Whose `PASS` is a password; a compiler's passes are something else.
const OF_USERS: [&str; 22] = [
    "DB", "DATABASE", "USER", "ADMIN", "ROOT", "MYSQL", "MARIADB", "PG", "POSTGRES", "REDIS", "MONGO",
    "RABBITMQ", "SMTP", "MAIL", "EMAIL", "LDAP", "FTP", "PROXY", "AUTH", "LOGIN", "REGISTRY", "SSH",
];

/// Whether a variable's name says that its value is a secret.
pub(super) fn secret(name: &str) -> Option<Secret> {
    if name.len() < 3 || name.len() > NAME_MAX || !name.is_ascii() {
        return None;
    }
    let shouted = !name.bytes().any(|byte| byte.is_ascii_lowercase());
    let plain = plain(name);
    let mut parts = plain.rsplit('_');
    let last = parts.next().unwrap_or_default();
    let before = parts.next();
    if ELSEWHERE.contains(&last) {
        return None;
    }
    let is = |parts: &[&str]| before.is_some_and(|before| parts.contains(&before));
    if PASSWORDS.iter().any(|part| plain.contains(part)) {
        return Some(Secret::Password);
    }
    match last {
        // Alone it is the directory that a shell works in.
        "PWD" if before.is_some_and(|before| before != "OLD") => return Some(Secret::Password),
        "PASS" if is(&OF_USERS) || (shouted && before.is_none()) => return Some(Secret::Password),
        "TOKEN" if is(&OF_SECRETS) => return Some(Secret::Key),
        "TOKEN" if shouted && !is(&OF_TEXT) => return Some(Secret::Key),
        "TOKEN" if before.is_none() => return Some(Secret::Token),
        "PAT" if shouted || is(&OF_SECRETS) => return Some(Secret::Key),
        _ => {}
    }
    KEYS.iter().any(|part| plain.contains(part)).then_some(Secret::Key)
}

/// A name in capitals, its words apart: `apiKey`, `api-key` and `api.key` are `API_KEY`.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len() + 8);
    let mut small = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && small {
            plain.push('_');
        }
        small = letter.is_ascii_lowercase();
        plain.push(if matches!(letter, '-' | '.') { '_' } else { letter.to_ascii_uppercase() });
    }
    plain
}

/// Whether a name is one of an environment's variables.
pub(super) fn is_variable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && text.contains('_')
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase())
}

/// Whether a value can be a secret of that sort.
pub(super) fn is_value(secret: Secret, value: &str) -> bool {
    /// What stands for a value that is elsewhere, or for none.
    const NONE: [&str; 12] = [
        "none",
        "null",
        "true",
        "false",
        "undefined",
        "unset",
        "redacted",
        "hidden",
        "empty",
        "required",
        "optional",
        "string",
    ];
    let value = value.trim();
    let Some(first) = value.bytes().next() else { return false };
    let elsewhere = value.starts_with("${")
        || value.starts_with("$(")
        || value.starts_with("{{")
        || value.starts_with("%(")
        || value.starts_with("os.")
        || (first == b'<' && value.ends_with('>'))
        || (first == b'[' && value.ends_with(']'))
        || value.strip_prefix('$').is_some_and(is_variable);
    if value.len() < 4
        || elsewhere
        || value.bytes().all(|byte| byte == first && b"*.xX-_".contains(&byte))
        || NONE.contains(&value.to_ascii_lowercase().as_str())
    {
        return false;
    }
    // `/run/secrets/password` tells where it is.
    let path = value.starts_with('/') && value.matches('/').count() > 1 && !value.contains(['+', '=']);
    match secret {
        Secret::Password => !path,
        Secret::Key => value.parse::<f64>().is_err() && !(path && value.contains(['.', '-', '_'])),
        Secret::Token => {
            value.len() >= 16
                && !value.contains(char::is_whitespace)
                && value.bytes().any(|byte| byte.is_ascii_digit())
                && value.bytes().any(|byte| byte.is_ascii_alphabetic())
                && value.parse::<f64>().is_err()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in [
            "HF_TOKEN",
            "hf_token",
            "password",
            "api_key",
            "apiKey",
            "api-key",
            "accessToken",
            "DB_PASS",
            "MYSQL_PWD",
            "db_pass",
            "GITHUB_PAT",
            "spring.datasource.password",
            "S3_ACCESS_KEY_ID",
            "MY_SECRET",
            "VLLM_API_KEY",
        ] {
            assert!(secret(name).is_some_and(|secret| secret != Secret::Token), "{name}");
        }
        for name in [
            "PWD",
            "OLDPWD",
            "OLD_PWD",
            "pad_token",
            "EOS_TOKEN",
            "HF_TOKEN_PATH",
            "VLLM_MAX_TOKENS",
            "secretName",
            "post_grad_custom_post_pass",
            "joint_custom_pre_pass",
            "POST_GRAD_PASS",
            "pass",
            "num_warps",
            "VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD",
            "max_password_length",
            "secretKeyRef",
        ] {
            assert_eq!(secret(name), None, "{name}");
        }
        assert_eq!(secret("token"), Some(Secret::Token));
    }

    #[test]
    fn values() {
        for (sort, value, expected) in [
            (Secret::Key, "abcdef", true),
            (Secret::Key, "12345678", false),
            (Secret::Password, "12345678", true),
            (Secret::Password, "two words", true),
            (Secret::Password, "/run/secrets/password", false),
            (Secret::Key, "/root/key.json", false),
            (Secret::Key, "/abc/def/wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", true),
            (Secret::Key, "${OTHER}", false),
            (Secret::Key, "$OTHER_KEY", false),
            (Secret::Key, "<your key>", false),
            (Secret::Key, "****", false),
            (Secret::Key, "None", false),
            (Secret::Key, "abc", false),
            (Secret::Token, "</s>", false),
            (Secret::Token, "abcdefgh12345678", true),
        ] {
            assert_eq!(is_value(sort, value), expected, "{value}");
        }
    }
}
