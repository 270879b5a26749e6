//! CPU and memory as they are written: any text to the schema, and refused by the API server only with the Deployment, after
//! the configuration has changed already.

use super::{Fault, invalid};
use crate::{contained::quantity, crd::Resources};

pub fn faults(part: &str, resources: &Resources) -> Vec<Fault> {
    let (requests, limits) = (&resources.requests, &resources.limits);
    let mut faults = Vec::new();
    for (what, request, limit) in [("cpu", &requests.cpu, &limits.cpu), ("memory", &requests.memory, &limits.memory)] {
        let mut amounts = [None; 2];
        for (at, (of, text)) in [("requests", request), ("limits", limit)].into_iter().enumerate() {
            let Some(text) = text else { continue };
            amounts[at] = quantity(&text.0);
            if amounts[at].is_none() {
                let message =
                    format!("spec.{part}.resources.{of}.{what}: {:?} is no quantity such as 500m or 128Mi", text.0);
                faults.push(invalid(message));
            }
        }
        if let [Some(request), Some(limit)] = amounts
            && request > limit
        {
            faults.push(invalid(format!("spec.{part}.resources: requests.{what} is above limits.{what}")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::left_out(json!({}), None)]
    #[case::right(json!({ "requests": { "cpu": "0.5", "memory": "64Mi" }, "limits": { "cpu": "500m", "memory": "1e8" } }), None)]
    #[case::no_number(json!({ "requests": { "memory": "much" } }), Some("requests.memory: \"much\" is no quantity"))]
    #[case::negative(json!({ "limits": { "cpu": "-1" } }), Some("limits.cpu: \"-1\" is no quantity"))]
    #[case::above(json!({ "requests": { "cpu": "2" }, "limits": { "cpu": "1500m" } }), Some("requests.cpu is above"))]
    fn amounts(#[case] resources: serde_json::Value, #[case] told: Option<&str>) {
        let found = faults("api", &serde_json::from_value(resources).unwrap());
        assert_eq!(found.len(), usize::from(told.is_some()), "{found:?}");
        assert!(found.iter().zip(told).all(|(fault, told)| fault.message.contains(told)), "{found:?}");
    }
}
