//! What torch wrote about the host into a pickle, as values. Must not know pickles' instructions.

use super::{
    Attribute, Evidence,
    patterns::is_version,
    pickle::{Field, Fields},
    settle::Sightings,
};

/// Begins what `save_compiled_function` writes since torch 2.15; a byte with the version of the format follows, then
/// the pickle. Before, the pickle was all of it.
pub(super) const MAGIC: &[u8] = b"PT2AOT";

/// Notes what a pickle said that begins `start` bytes into the file at `path`.
pub(super) fn note(fields: &Fields, path: &str, start: u64, sightings: &mut Sightings) {
    let mut add = |attribute, name: &str, field: &Field, value: String| {
        let found = format!("{name} = '{}'", super::excerpt::excerpt(field.value.as_bytes()));
        let offset = Some(start.saturating_add(field.offset));
        sightings.add(attribute, value, Evidence { path: path.to_owned(), found, offset });
    };
    for (attribute, name, field) in [
        (Attribute::Python, "SystemInfo.python_version", &fields.python),
        (Attribute::Torch, "SystemInfo.torch_version", &fields.torch),
    ] {
        if let Some(field) = field.as_ref().filter(|field| is_version(&field.value)) {
            add(attribute, name, field, field.value.clone());
        }
    }
    // (0, 0) stands for no Triton.
    if let Some(Field { value: (major, minor), offset }) =
        fields.triton.clone().filter(|field| field.value != (0, 0))
    {
        let field = Field { value: format!("{major}.{minor}"), offset };
        add(Attribute::Triton, "SystemInfo.triton_version", &field, field.value.clone());
    }
    if let Some(field) = &fields.gpu_name {
        let name = super::excerpt::excerpt(field.value.as_bytes());
        if !name.is_empty() {
            add(Attribute::GpuName, "SystemInfo.gpu_name", field, name);
        }
    }
    // XPUs have a toolkit too; its version is a date.
    let cuda = fields.toolkit.as_ref().filter(|field| is_version(&field.value) && field.value.len() <= 5);
    if let Some(field) = cuda {
        add(Attribute::Cuda, "SystemInfo.toolkit_version", field, field.value.clone());
    }
    let Some(device) = &fields.device_type else { return };
    let rocm = fields.torch.as_ref().is_some_and(|torch| torch.value.contains("+rocm"));
    match device.value.as_str() {
        "cuda" if cuda.is_some() => add(Attribute::Backend, "device_type", device, "cuda".to_owned()),
        // torch calls devices of ROCm `cuda`, and gives no toolkit for them.
        "cuda" if rocm => add(Attribute::Backend, "device_type", device, "rocm".to_owned()),
        // A graph whose first input is a number is said to be of the processor, so that alone tells nothing.
        "cpu" if fields.no_gpu => sightings.add_processor_code(Evidence {
            path: path.to_owned(),
            found: "device_type = 'cpu', and SystemInfo.gpu_name = None".to_owned(),
            offset: Some(start.saturating_add(device.offset)),
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile_cache::identity::{Identity, settle::settle};

    fn noted(fields: &Fields) -> Identity {
        let mut sightings = Sightings::default();
        note(fields, "model", 7, &mut sightings);
        settle(sightings)
    }

    fn field(value: &str) -> Field {
        Field { value: value.to_owned(), offset: 3 }
    }

    #[test]
    fn the_device_type_counts_with_what_proves_it() {
        let backend = |fields: &Fields| noted(fields).only(Attribute::Backend).map(str::to_owned);
        let cuda =
            Fields { device_type: Some(field("cuda")), toolkit: Some(field("12.8")), ..Fields::default() };
        assert_eq!(backend(&cuda).as_deref(), Some("cuda"));
        let rocm = Fields {
            device_type: Some(field("cuda")),
            torch: Some(field("2.9.1+rocm6.4")),
            ..Fields::default()
        };
        assert_eq!(backend(&rocm).as_deref(), Some("rocm"));
        assert_eq!(backend(&Fields { device_type: Some(field("cuda")), ..Fields::default() }), None);
        let graph = Fields {
            device_type: Some(field("cpu")),
            gpu_name: Some(field("NVIDIA L4")),
            ..Fields::default()
        };
        assert_eq!(backend(&graph), None);
        let cpu = Fields { device_type: Some(field("cpu")), no_gpu: true, ..Fields::default() };
        assert_eq!(backend(&cpu).as_deref(), Some("cpu"));
    }

    #[test]
    fn fields_become_values() {
        let identity = noted(&Fields {
            python: Some(field("3.12.3")),
            torch: Some(field("2.14.1+cu130")),
            toolkit: Some(field("13.0")),
            triton: Some(Field { value: (3, 8), offset: 9 }),
            gpu_name: Some(field("NVIDIA H100 80GB HBM3")),
            no_gpu: false,
            device_type: Some(field("cuda")),
        });
        assert_eq!(identity.only(Attribute::Python), Some("3.12.3"));
        assert_eq!(identity.facts(Attribute::Python)[0].evidence[0].offset, Some(10));
        assert_eq!(identity.only(Attribute::Torch), Some("2.14.1+cu130"));
        assert_eq!(identity.only(Attribute::Cuda), Some("13.0"));
        assert_eq!(identity.only(Attribute::Triton), Some("3.8"));
        assert_eq!(identity.only(Attribute::GpuName), Some("NVIDIA H100 80GB HBM3"));
    }

    #[test]
    fn what_is_no_version_is_not_believed() {
        let identity = noted(&Fields {
            python: Some(field("three")),
            torch: Some(field("\u{1b}[31m2.9")),
            toolkit: Some(field("20250101")),
            triton: Some(Field { value: (0, 0), offset: 0 }),
            ..Fields::default()
        });
        assert_eq!(identity.iter().count(), 0);
    }
}
