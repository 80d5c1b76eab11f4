//! What words have counted: the few thousand that texts are mostly made of.
//!
//! A word with its length and count is 16 bytes, and has one place where it can be; another that belongs there drives
//! it out. So the whole stays in the processor's second cache, where a vocabulary's megabytes do not.

/// Longer ones are counted each time.
const LONGEST: usize = 15;

/// Two to the power of this are the places: 128 KiB.
const PLACES: u32 = 13;

/// Of the byte behind the word the bits that have its length. The others have its count, which is no larger.
const LENGTH: u32 = 4;

/// The remembered words, each behind its length and count. A place that is 0 has none: no word has the length 0.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<u128>);

/// A word in one number: its bytes, and above them its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u128);

// === impl Words ===

impl Words {
    /// These bytes of the text as a word; none if they are too many.
    #[inline]
    pub(super) fn word(&self, text: &[u8], from: usize, end: usize) -> Option<Word> {
        let length = end.checked_sub(from)?;
        if length > LONGEST || length == 0 {
            return None;
        }
        let rest = text.get(from..)?;
        let bytes = match rest.first_chunk() {
            // What stands behind the word comes along and is shifted out.
            Some(bytes) => u128::from_le_bytes(*bytes) & (u128::MAX >> (128 - 8 * length)),
            None => {
                let word = rest.iter().take(length).rev();
                word.fold(0, |bytes, byte| bytes << 8 | u128::from(*byte))
            }
        };
        Some(Word(bytes | (length as u128) << (8 * LONGEST)))
    }

    /// What the word counts, by `count` where it is not known.
    #[inline]
    pub(super) fn count(&mut self, word: Word, count: impl FnOnce() -> u64) -> u64 {
        const ABOVE: u32 = 8 * LONGEST as u32 + LENGTH;
        if self.0.is_empty() {
            self.0 = vec![0; 1 << PLACES];
        }
        let Some(place) = self.0.get_mut(word.place()) else {
            return count();
        };
        if (*place ^ word.0) << (128 - ABOVE) == 0 {
            return (*place >> ABOVE) as u64;
        }
        let counted = count();
        if counted <= LONGEST as u64 {
            *place = word.0 | u128::from(counted) << ABOVE;
        }
        counted
    }
}

// === impl Word ===

impl Word {
    fn place(self) -> usize {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let (low, high) = (self.0 as u64, (self.0 >> 64) as u64);
        let mixed = (low ^ high.rotate_left(29)).wrapping_mul(ODD);
        // The uppermost bits, since only they depend on every byte.
        (mixed >> (64 - PLACES)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_known() {
        let text = "one, two, one and a word that is too long: incomprehensible".as_bytes();
        let mut words = Words::default();
        let one = words.word(text, 0, 3).unwrap();
        assert_eq!(words.count(one, || 7), 7);
        assert_eq!(words.word(text, 10, 13), Some(one));
        assert_eq!(words.count(one, || panic!("it is known")), 7);
        let two = words.word(text, 5, 8).unwrap();
        assert_eq!(words.count(two, || 15), 15);
        assert_eq!(words.count(one, || panic!("it is known")), 7);
        assert_eq!(words.count(two, || panic!("it is known")), 15);
        assert_eq!(words.word(text, 43, text.len()), None);
        assert_eq!(words.word(text, 4, 4), None);
    }

    #[test]
    fn a_word_is_the_same_wherever_it_stands() {
        let words = Words::default();
        for length in 1..=LONGEST {
            let word = "\0bcdefghijklmno".get(..length).unwrap();
            let at_the_end = words.word(word.as_bytes(), 0, length).unwrap();
            let longer = format!("{word}{}", "z".repeat(16));
            let within = words.word(longer.as_bytes(), 0, length);
            assert_eq!(within, Some(at_the_end));
            let shorter = words.word(longer.as_bytes(), 0, length - 1);
            assert_ne!(shorter, Some(at_the_end));
        }
    }
}
