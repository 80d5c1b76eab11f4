//! The bytes of a JSON document, from one token to the next.
//!
//! What is taken is complete: a value that is passed over has been checked as far as serde_json checks one that it ignores.

/// The eighth bit of each byte of a word.
const HIGH: u64 = 0x8080_8080_8080_8080;
/// One in each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
/// Beyond so many bytes a string is long, and worth a search that takes more to start.
const LONG: usize = 48;
/// Digits of which any number fits 64 bits.
const DIGITS: usize = 18;

/// What has not been read.
pub(crate) struct Plain<'de> {
    rest: &'de [u8],
}

/// A string.
pub(crate) struct Quoted<'de> {
    /// What stands between the quotes.
    pub(crate) inner: &'de [u8],
    /// And they.
    pub(crate) quoted: &'de [u8],
    /// There is a backslash in it.
    pub(crate) escapes: bool,
    /// There is nothing but ASCII in it.
    pub(crate) ascii: bool,
}

/// A number.
pub(crate) struct Number<'de> {
    pub(crate) text: &'de [u8],
    /// Its value, if it is whole, not negative, and not too long.
    pub(crate) whole: Option<u64>,
}

// === impl Plain ===

impl<'de> Plain<'de> {
    pub(crate) fn new(rest: &'de [u8]) -> Self {
        Self { rest }
    }

    /// The next byte that is no white space. It stays.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            // One comparison for nearly all.
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.rest = rest;
        }
    }

    /// Takes the byte that was seen.
    #[inline]
    pub(crate) fn bump(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// Takes this byte, if it is the next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        if is {
            self.bump();
        }
        is
    }

    /// Takes this word, if it is the next.
    #[inline]
    pub(crate) fn take_word<const N: usize>(&mut self, word: &[u8; N]) -> bool {
        match self.rest.split_first_chunk::<N>() {
            Some((first, rest)) if first == word => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// How much is left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    pub(crate) fn is_over(&mut self) -> bool {
        self.peek().is_none()
    }

    /// The string that is next. Its escapes have not been looked at.
    #[inline]
    pub(crate) fn string(&mut self) -> Option<Quoted<'de>> {
        let whole = self.rest;
        let mut end = 1;
        let mut high = 0;
        let mut escapes = false;
        loop {
            end += run(whole.get(end..)?, &mut high);
            match whole.get(end)? {
                b'"' => break,
                b'\\' => {
                    escapes = true;
                    // Whatever it is, it does not end the string.
                    end += 2;
                }
                _ => return None,
            }
        }
        self.rest = whole.get(end + 1..)?;
        Some(Quoted {
            inner: whole.get(1..end)?,
            quoted: whole.get(..=end)?,
            escapes,
            ascii: high & HIGH == 0,
        })
    }

    /// The number that is next.
    #[inline]
    pub(crate) fn number(&mut self) -> Option<Number<'de>> {
        let whole = self.rest;
        let (mut value, mut digits) = (0_u64, 0);
        for byte in whole {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 || digits == DIGITS {
                break;
            }
            value = value * 10 + u64::from(digit);
            digits += 1;
        }
        let ends = !matches!(whole.get(digits), Some(b'0'..=b'9' | b'.' | b'e' | b'E'));
        if digits > 0 && ends && (digits == 1 || whole.first() != Some(&b'0')) {
            let (text, rest) = whole.split_at_checked(digits)?;
            self.rest = rest;
            return Some(Number {
                text,
                whole: Some(value),
            });
        }
        self.skip_number()?;
        let length = whole.len() - self.rest.len();
        Some(Number {
            text: whole.get(..length)?,
            whole: None,
        })
    }

    /// Passes a value over, with all that is in it.
    pub(crate) fn skip(&mut self) -> Option<()> {
        // A bit for each container that is open, the innermost the lowest: whether it is an object. Above them all a one.
        let mut open = 1_u64;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                b'n' => self.take_word(b"null").then_some(())?,
                b't' => self.take_word(b"true").then_some(())?,
                b'f' => self.take_word(b"false").then_some(())?,
                bracket @ (b'{' | b'[') => {
                    self.bump();
                    let object = bracket == b'{';
                    if !self.take(bracket + 2) {
                        if open & (1 << 63) != 0 {
                            return None;
                        }
                        open = open << 1 | u64::from(object);
                        if object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                _ => return None,
            }
            loop {
                if open == 1 {
                    return Some(());
                }
                let object = open & 1 != 0;
                let next = self.peek()?;
                self.bump();
                match next {
                    b',' => {
                        if object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    b'}' if object => open >>= 1,
                    b']' if !object => open >>= 1,
                    _ => return None,
                }
            }
        }
    }

    fn skip_key(&mut self) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        self.skip_string()?;
        self.take(b':').then_some(())
    }

    fn skip_string(&mut self) -> Option<()> {
        let mut high = 0;
        self.rest = self.rest.get(1..)?;
        loop {
            let length = run(self.rest, &mut high);
            let (end, rest) = self.rest.get(length..)?.split_first()?;
            match end {
                b'"' => {
                    self.rest = rest;
                    return Some(());
                }
                b'\\' => {
                    let (escape, rest) = rest.split_first()?;
                    self.rest = match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => rest,
                        b'u' => {
                            let (digits, rest) = rest.split_first_chunk::<4>()?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(rest)?
                        }
                        _ => return None,
                    };
                }
                _ => return None,
            }
        }
    }

    fn skip_number(&mut self) -> Option<()> {
        let rest = self.rest.strip_prefix(b"-").unwrap_or(self.rest);
        let mut rest = match rest.strip_prefix(b"0") {
            Some(rest) => rest,
            None => digits(rest)?,
        };
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = digits(fraction)?;
        }
        if let Some((b'e' | b'E', exponent)) = rest.split_first() {
            rest = match exponent.split_first()? {
                (b'+' | b'-', exponent) => digits(exponent)?,
                _ => digits(exponent)?,
            };
        }
        self.rest = rest;
        Some(())
    }
}

/// What is behind at least one digit.
#[inline]
fn digits(from: &[u8]) -> Option<&[u8]> {
    let length = from.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        None
    } else {
        from.get(length..)
    }
}

/// How many bytes there are before a quote, a backslash, a control character, or the end. `high` gets their eighth bits.
#[inline]
pub(crate) fn run(text: &[u8], high: &mut u64) -> usize {
    let mut length = 0;
    while let Some(eight) = text.get(length..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        // The lowest bit that is set is right in each of these; higher ones may follow from it.
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let special = (quote.wrapping_sub(ONES) & !quote
            | backslash.wrapping_sub(ONES) & !backslash
            | word.wrapping_sub(ONES * 0x20) & !word)
            & HIGH;
        if special != 0 {
            let bits = special.trailing_zeros() & !7;
            *high |= word & !(u64::MAX << bits);
            return length + bits as usize / 8;
        }
        *high |= word;
        length += 8;
        if length >= LONG {
            return length + long_run(text.get(length..).unwrap_or_default(), high);
        }
    }
    for byte in text.get(length..).unwrap_or_default() {
        if *byte < 0x20 || matches!(byte, b'"' | b'\\') {
            break;
        }
        *high |= u64::from(*byte);
        length += 1;
    }
    length
}

/// The same of what may be long.
#[inline(never)]
fn long_run(text: &[u8], high: &mut u64) -> usize {
    let end = memchr::memchr2(b'"', b'\\', text).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default();
    let (mut least, mut bits) = (u8::MAX, 0);
    for byte in text {
        least = least.min(*byte);
        bits |= byte;
    }
    *high |= u64::from(bits);
    if least >= 0x20 {
        return end;
    }
    text.iter().position(|byte| *byte < 0x20).unwrap_or(end)
}
