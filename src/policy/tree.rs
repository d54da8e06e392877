//! The tree of declared paths, walked once per record.
//!
//! Each branch is an object (or an array, by index) of a record; its keys lead to a column, to a branch below, or to a drop.
//! Keys are found by an open table that is at most half full, hashed from the key's length and its first and last eight
//! bytes: the keys are fixed when the policy is compiled, so a record can choose what it looks up and not what is in there.
//!
//! Before that is asked, one comparison with the key that came next in the record before: a source writes its records alike.

use std::collections::BTreeMap;

use crate::policy::json::plain_length;

/// Branches by number; the first is the record.
#[derive(Debug)]
pub(super) struct Tree {
    branches: Vec<Branch>,
}

/// Where a key leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Skip the value.
    Drop,
    /// Store the value in the column of this number.
    Column(usize),
    /// Go down into the branch of this number.
    Branch(usize),
    /// Compare the value with the organisation that is expected.
    Organisation,
}

/// What a path is declared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// Skip the value, or what of it no longer path declares.
    Drop,
    /// Store the value in the column of this number.
    Column(usize),
    /// Compare the value with the organisation that is expected, and skip it.
    Organisation,
}

#[derive(Debug)]
pub(super) struct Branch {
    /// Path from the record's root, for reports.
    pub(super) path: String,
    /// Something at or above this branch drops all that is not declared, without a report.
    pub(super) is_covered: bool,
    keys: Keys,
    items: Vec<Option<Target>>,
}

impl Branch {
    /// Finds where a key of an object leads.
    pub(super) fn key(&self, key: &str) -> Option<Target> {
        self.entry(key).map(|entry| self.target(entry))
    }

    /// Finds the number of a declared key.
    pub(super) fn entry(&self, key: &str) -> Option<usize> {
        self.keys.find(key.as_bytes())
    }

    /// Returns where the declared key of this number leads.
    pub(super) fn target(&self, entry: usize) -> Target {
        self.keys.entries[entry].target
    }

    /// Returns a declared key as most writers of JSON write it, with its quotes and its colon; empty where escapes are needed.
    pub(super) fn written(&self, entry: usize) -> &[u8] {
        &self.keys.entries[entry].written
    }

    /// Finds where an element of an array leads.
    pub(super) fn item(&self, index: usize) -> Option<Target> {
        self.items.get(index).copied().flatten()
    }

    /// Tells whether any element of an array is declared.
    pub(super) fn has_items(&self) -> bool {
        !self.items.is_empty()
    }
}

/// Which declared key came after which, the last time: by branch, and in it by the number of the key before plus one.
#[derive(Debug, Default)]
pub(super) struct Order(Vec<Box<[u16]>>);

/// Before the first key of an object.
pub(super) const START: usize = 0;

impl Order {
    pub(super) fn new(tree: &Tree) -> Self {
        Self(tree.branches.iter().map(|branch| vec![u16::MAX; branch.keys.entries.len() + 1].into()).collect())
    }

    /// Returns the number of the key that came after this one the last time.
    pub(super) fn next(&self, branch: usize, place: usize) -> Option<usize> {
        let entry = usize::from(*self.0[branch].get(place)?);
        (entry != usize::from(u16::MAX)).then_some(entry)
    }

    /// Keeps what came after this one, and returns the place behind it.
    pub(super) fn follow(&mut self, branch: usize, place: usize, entry: usize) -> usize {
        self.0[branch][place] = u16::try_from(entry).unwrap_or(u16::MAX);
        entry + 1
    }
}

#[derive(Default)]
struct Draft {
    leaf: Option<Leaf>,
    children: BTreeMap<String, Draft>,
}

impl Tree {
    /// Builds the tree; of two declarations of one path the first stays.
    ///
    /// `known` are objects that are entered even where nothing inside them is declared, so that reports name what they hold.
    pub(super) fn new<'a>(paths: impl Iterator<Item = (&'a [String], Leaf)>, known: &[&[&str]]) -> Self {
        let mut root = Draft::default();
        for (path, leaf) in paths {
            let mut draft = &mut root;
            for key in path {
                draft = draft.children.entry(key.clone()).or_default();
            }
            draft.leaf.get_or_insert(leaf);
        }
        for path in known {
            path.iter().fold(&mut root, |draft, key| draft.children.entry((*key).to_owned()).or_default());
        }
        let mut tree = Self { branches: Vec::new() };
        tree.add(root, "", false);
        tree
    }

    pub(super) fn branch(&self, number: usize) -> &Branch {
        &self.branches[number]
    }

    pub(super) fn len(&self) -> usize {
        self.branches.len()
    }

    fn add(&mut self, draft: Draft, path: &str, is_covered: bool) -> usize {
        let is_covered = is_covered || draft.leaf == Some(Leaf::Drop);
        let number = self.branches.len();
        self.branches.push(Branch { path: path.to_owned(), is_covered, keys: Keys::default(), items: Vec::new() });
        let mut keys = Vec::with_capacity(draft.children.len());
        let mut items = Vec::new();
        for (key, child) in draft.children {
            let target = match child.leaf {
                Some(Leaf::Column(column)) => Target::Column(column),
                Some(Leaf::Organisation) => Target::Organisation,
                Some(Leaf::Drop) if child.children.is_empty() => Target::Drop,
                _ => {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    Target::Branch(self.add(child, &below, is_covered))
                }
            };
            // Arrays are walked from their start: an index beyond any that people write would cost memory for nothing.
            if let Ok(index) = key.parse::<u8>() {
                let index = usize::from(index);
                if items.len() <= index {
                    items.resize(index + 1, None);
                }
                items[index] = Some(target);
            }
            keys.push(Entry::new(key, target));
        }
        let branch = &mut self.branches[number];
        branch.keys = Keys::new(keys);
        branch.items = items;
        number
    }
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    written: Box<[u8]>,
    target: Target,
}

impl Entry {
    fn new(name: String, target: Target) -> Self {
        let needs_escape = plain_length(name.as_bytes()) != name.len();
        let written = if needs_escape { String::new() } else { format!("\"{name}\":") };
        Self { name: name.into(), written: written.into_bytes().into(), target }
    }
}

#[derive(Debug, Default)]
struct Keys {
    entries: Vec<Entry>,
    /// Number of the entry plus one, or zero; a power of two of them.
    slots: Vec<u16>,
    shift: u32,
}

impl Keys {
    fn new(entries: Vec<Entry>) -> Self {
        let size = (entries.len() * 2).next_power_of_two().max(2);
        let shift = 64 - size.trailing_zeros();
        let mut slots = vec![0; size];
        for (number, entry) in entries.iter().enumerate() {
            let mut slot = (hash(entry.name.as_bytes()) >> shift) as usize;
            while slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            slots[slot] = number as u16 + 1;
        }
        Self { entries, slots, shift }
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = (hash(key) >> self.shift) as usize;
        loop {
            let entry = usize::from(self.slots[slot].checked_sub(1)?);
            if self.entries[entry].name.as_bytes() == key {
                return Some(entry);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }
}

fn hash(key: &[u8]) -> u64 {
    let (first, last) = if let (Some(first), Some(last)) = (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else {
        let mut bytes = [0; 8];
        bytes[..key.len()].copy_from_slice(key);
        (u64::from_le_bytes(bytes), 0)
    };
    // An odd constant without structure; its upper bits mix all bits below.
    (first ^ last.rotate_left(27) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_columns_drops_and_branches() {
        let paths: Vec<(Vec<String>, Leaf)> = [
            ("id", Leaf::Column(0)),
            ("attributes.sla", Leaf::Drop),
            ("attributes.sla.name", Leaf::Column(1)),
            ("attributes.emails.1.email", Leaf::Column(2)),
            ("links", Leaf::Drop),
        ]
        .map(|(path, leaf)| (path.split('.').map(str::to_owned).collect(), leaf))
        .to_vec();
        let tree = Tree::new(paths.iter().map(|(path, leaf)| (path.as_slice(), *leaf)), &[&["known"]]);
        let down = |branch: usize, key: &str| match tree.branch(branch).key(key) {
            Some(Target::Branch(number)) => number,
            other => panic!("{key}: {other:?}"),
        };
        let root = tree.branch(0);
        assert_eq!(root.key("id"), Some(Target::Column(0)));
        assert_eq!(root.key("links"), Some(Target::Drop));
        assert_eq!(root.key("linkz"), None);
        assert!(!root.is_covered);
        let attributes = down(0, "attributes");
        let sla = tree.branch(down(attributes, "sla"));
        assert!(sla.is_covered);
        assert_eq!((sla.path.as_str(), sla.key("name")), ("attributes.sla", Some(Target::Column(1))));
        let emails = tree.branch(down(attributes, "emails"));
        assert!(emails.has_items() && emails.item(0).is_none() && emails.item(2).is_none());
        assert!(matches!(emails.item(1), Some(Target::Branch(_))));
        assert!(matches!(root.key("known"), Some(Target::Branch(_))));
        assert_eq!(tree.len(), 6);
    }

    #[test]
    fn every_key_of_a_large_branch_is_found_and_no_other() {
        let names: Vec<String> = (0..500).map(|n| format!("attribute{n}{}", "x".repeat(n % 20))).collect();
        let keys =
            Keys::new(names.iter().enumerate().map(|(n, name)| Entry::new(name.clone(), Target::Column(n))).collect());
        for (n, name) in names.iter().enumerate() {
            assert_eq!(keys.find(name.as_bytes()), Some(n));
            assert_eq!(keys.find(format!("{name}y").as_bytes()), None);
        }
        assert_eq!(keys.find(b""), None);
    }
}
