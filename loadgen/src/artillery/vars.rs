//! Owns the variables of a virtual user, and which of them the script's JavaScript has not seen yet.
//! Must not know what they are for.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Variables by name.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    all: Map<String, Value>,
    /// Names set or removed since the last [`Vars::news`]; none when nobody asks.
    changed: Option<BTreeSet<String>>,
}

impl Vars {
    /// These, all of them news when `watched`.
    pub(crate) fn new(all: Map<String, Value>, watched: bool) -> Vars {
        let changed = watched.then(|| all.keys().cloned().collect());
        Vars { all, changed }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name)
    }

    pub(crate) fn all(&self) -> &Map<String, Value> {
        &self.all
    }

    pub(crate) fn insert(&mut self, name: String, value: Value) {
        if let Some(changed) = &mut self.changed {
            changed.insert(name.clone());
        }
        self.all.insert(name, value);
    }

    /// The same for a name that is most often there.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        match self.all.get_mut(name) {
            Some(_) if self.changed.is_some() => self.insert(name.to_owned(), value),
            Some(slot) => *slot = value,
            None => self.insert(name.to_owned(), value),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if self.all.shift_remove(name).is_some()
            && let Some(changed) = &mut self.changed
        {
            changed.insert(name.to_owned());
        }
    }

    /// JavaScript knows this one already.
    pub(crate) fn known(&mut self, name: &str) {
        if let Some(changed) = &mut self.changed {
            changed.remove(name);
        }
    }

    /// What was set and what was removed since the last call.
    pub(crate) fn news(&mut self) -> (Map<String, Value>, Vec<String>) {
        let (mut set, mut gone) = (Map::new(), Vec::new());
        for name in self
            .changed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
        {
            match self.all.get(&name) {
                Some(value) => {
                    set.insert(name, value.clone());
                }
                None => gone.push(name),
            }
        }
        (set, gone)
    }

    /// Takes what JavaScript has changed: no news to it.
    pub(crate) fn take(&mut self, set: Map<String, Value>, gone: &[String]) {
        self.all.extend(set);
        for name in gone {
            self.all.shift_remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn news_are_told_once() {
        let given = json!({"a": 1, "b": 2}).as_object().cloned().unwrap();
        let mut vars = Vars::new(given, true);
        assert_eq!(vars.news().0.len(), 2);
        vars.insert("a".into(), json!(3));
        vars.remove("b");
        vars.remove("nix");
        assert_eq!(
            vars.news(),
            (
                json!({"a": 3}).as_object().cloned().unwrap(),
                vec!["b".to_owned()]
            )
        );
        vars.take(
            json!({"c": 4}).as_object().cloned().unwrap(),
            &["a".to_owned()],
        );
        assert_eq!(vars.news(), (Map::new(), Vec::new()));
        assert_eq!(vars.all(), json!({"c": 4}).as_object().unwrap());
    }
}
