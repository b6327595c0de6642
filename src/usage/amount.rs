//! Amounts as people write them: exact decimals, never through a float.

use super::Money;

impl Money {
    /// Reads dollars such as `5`, `$5`, `5.00` or `0.000001`: at most nine decimals, at most a
    /// billion dollars.
    pub fn parse(text: &str) -> Option<Self> {
        decimal(dollars(text), 9).filter(|money| *money <= MOST_MONEY).map(Self)
    }

    /// Dollars with all decimals there are, two at least: `$5.00`, `$0.000001`.
    pub fn exact(self) -> String {
        let decimals = format!("{:09}", self.0 % ONE_DOLLAR);
        let (cents, rest) = decimals.split_at(2);
        format!("${}.{cents}{}", self.0 / ONE_DOLLAR, rest.trim_end_matches('0'))
    }
}

/// Reads the price of a million tokens in dollars, such as `1.25`, as a [`Price`](super::Price)
/// has it: in trillionths of a dollar for each token. At most six decimals and a million dollars.
pub fn per_million(text: &str) -> Option<u64> {
    // A dollar for a million tokens is a million trillionths for each.
    decimal(dollars(text), 6).filter(|price| *price <= MOST_PRICE)
}

/// Reads a number of tokens such as `2000000`, `500k`, `2M` or `1.5M`, at most 10^15.
pub fn parse_tokens(text: &str) -> Option<u64> {
    let (number, places) = match text.as_bytes().last()? {
        b'M' => (&text[..text.len() - 1], 6),
        b'k' | b'K' => (&text[..text.len() - 1], 3),
        _ => (text, 0),
    };
    decimal(number, places).filter(|tokens| *tokens <= MOST_TOKENS)
}

fn dollars(text: &str) -> &str {
    text.strip_prefix('$').unwrap_or(text)
}

/// The decimal number `text`, which has at most `places` decimals, times ten to the `places`.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, decimals) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, decimals)) => (whole, decimals),
        None => (text, ""),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || decimals.len() > places || !digits(whole) || !digits(decimals) {
        return None;
    }
    format!("{whole}{decimals:0<places$}").parse().ok()
}

const ONE_DOLLAR: u64 = 1_000_000_000;
const MOST_MONEY: u64 = 1_000_000_000 * ONE_DOLLAR;
const MOST_PRICE: u64 = 1_000_000_000_000;
const MOST_TOKENS: u64 = 1_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn money_is_read_exactly() {
        for (text, billionths) in [
            ("5", 5_000_000_000),
            ("$5", 5_000_000_000),
            ("5.00", 5_000_000_000),
            ("0.000001", 1_000),
            ("0.1", 100_000_000),
            ("$0.000000001", 1),
            ("0", 0),
            ("007", 7_000_000_000),
            ("1000000000", MOST_MONEY),
        ] {
            assert_eq!(Money::parse(text), Some(Money(billionths)), "{text}");
        }
    }

    #[test]
    fn prices_are_for_a_million_tokens() {
        assert_eq!(per_million("1.25"), Some(1_250_000));
        assert_eq!(per_million("$15"), Some(15_000_000));
        assert_eq!(per_million("0.000001"), Some(1));
        assert_eq!(per_million("0.0000001"), None);
        assert_eq!(per_million("1000001"), None);
    }

    #[test]
    fn numbers_of_tokens_have_suffixes() {
        for (text, tokens) in [
            ("2000000", 2_000_000),
            ("2M", 2_000_000),
            ("1.5M", 1_500_000),
            ("500k", 500_000),
            ("500K", 500_000),
            ("0.001k", 1),
            ("0", 0),
        ] {
            assert_eq!(parse_tokens(text), Some(tokens), "{text}");
        }
        for bad in ["2m", "M", "1.5", "0.0001k", "2 M", "2MM", "10000000000M", "2Mé", "é"] {
            assert_eq!(parse_tokens(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_plain_decimal_is_refused() {
        for bad in [
            "",
            "$",
            ".",
            "5.",
            ".5",
            "-5",
            "+5",
            "5,00",
            "1e3",
            "5 ",
            " 5",
            "$$5",
            "5$",
            "1_000",
            "1.2.3",
            "inf",
            "NaN",
            "0x5",
            "٥",
            "1000000000.000000001",
            "0.0000000001",
            "99999999999999999999999",
        ] {
            assert_eq!(Money::parse(bad), None, "{bad}");
            assert_eq!(per_million(bad), None, "{bad}");
            assert_eq!(parse_tokens(bad), None, "{bad}");
        }
    }

    #[test]
    fn exact_money_shows_two_decimals_or_as_many_as_it_has() {
        assert_eq!(Money(5_000_000_000).exact(), "$5.00");
        assert_eq!(Money(1_500_000_000).exact(), "$1.50");
        assert_eq!(Money(1_000).exact(), "$0.000001");
        assert_eq!(Money(u64::MAX).exact(), "$18446744073.709551615");
    }

    proptest! {
        #[test]
        fn money_comes_back_as_it_was_written(billionths in 0..=MOST_MONEY) {
            prop_assert_eq!(Money::parse(&Money(billionths).exact()), Some(Money(billionths)));
        }

        #[test]
        fn prices_come_back_as_they_were_written(price in 0..=MOST_PRICE) {
            let text = format!("{}.{:06}", price / 1_000_000, price % 1_000_000);
            prop_assert_eq!(per_million(&text), Some(price));
        }

        #[test]
        fn tokens_come_back_as_they_were_written(tokens in 0..=MOST_TOKENS) {
            let millions = format!("{}.{:06}M", tokens / 1_000_000, tokens % 1_000_000);
            let thousands = format!("{}.{:03}k", tokens / 1_000, tokens % 1_000);
            for text in [tokens.to_string(), millions, thousands] {
                prop_assert_eq!(parse_tokens(&text), Some(tokens));
            }
        }

        #[test]
        fn no_text_is_too_odd_to_be_looked_at(text in any::<String>()) {
            Money::parse(&text);
            per_million(&text);
            parse_tokens(&text);
        }
    }
}
