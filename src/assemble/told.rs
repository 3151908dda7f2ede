//! What parts tell of what they were made of, put together. It is told whole or not at all. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{PartsError, check::Agreed, read::FoundPart};
use crate::pack::{
    Given, Inputs, Told,
    inputs::LayerInputs,
    part::{MadeOf, PartLayer},
};

/// The model card, whose licence only the worker who has all of it knows for sure.
const MODEL_CARD: &str = "README.md";

/// What documents about the image tell, and what it was made of.
pub(super) fn told(agreed: &Agreed<'_>) -> Result<(Told, Inputs), PartsError> {
    let untold = |part: &FoundPart| PartsError::Untold { part: part.part, name: part.name.clone() };
    let mut first: Option<(&FoundPart, &MadeOf)> = None;
    let mut of_card = None;
    let mut files = LayerInputs::new();
    for part in &agreed.parts {
        let made_of = part.made_of.as_ref().ok_or_else(|| untold(part))?;
        let (first, known) = *first.get_or_insert((part, made_of));
        let (given, other) = (&made_of.told.given, &known.told.given);
        if given != other {
            let differences = differences(given, other);
            return Err(PartsError::OtherGiven {
                part: part.part,
                name: part.name.clone(),
                other: first.part,
                differences,
            });
        }
        let image = &agreed.plan.image;
        if !part.layers.iter().all(|layer| image.are_told(layer.index, &made_of.files)) {
            return Err(untold(part));
        }
        for PartLayer { index, .. } in &part.layers {
            let of_layer = made_of.files.get(index).cloned().unwrap_or_default();
            let has_card = of_layer.iter().any(|file| file.path == MODEL_CARD);
            if has_card && image.is_of_model(*index) {
                of_card = Some(made_of);
            }
            files.insert(*index, of_layer);
        }
    }
    // Parts that agree are at least one.
    let Some(source) = of_card.or(first.map(|(_, made_of)| made_of)) else {
        return Ok((Told { given: Given::default(), licence: None }, Inputs::default()));
    };
    Ok((source.told.clone(), agreed.plan.image.inputs(files)))
}

/// How `this` differs from `other`, by the names that parts have for it.
fn differences(this: &Given, other: &Given) -> Vec<String> {
    let fields = |given: &Given| match serde_json::to_value(given) {
        Ok(Value::Object(fields)) => fields.into_iter().collect::<BTreeMap<_, _>>(),
        _ => BTreeMap::new(),
    };
    let (this, other) = (fields(this), fields(other));
    let names: std::collections::BTreeSet<&String> = this.keys().chain(other.keys()).collect();
    let text = |value: Option<&Value>| value.map_or_else(|| "not given".to_owned(), ToString::to_string);
    names
        .into_iter()
        .filter(|name| this.get(*name) != other.get(*name))
        .map(|name| format!("{name}: {}, not {}", text(this.get(name)), text(other.get(name))))
        .collect()
}
