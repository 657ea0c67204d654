//! ApiVersions: what is served, and nothing more.

use super::Api;
use crate::kafka::codec::ApiKey;
use crate::kafka::codec::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::kafka::error::ErrorCode;

/// The `metadata.version` level that goes with the table of APIs: Kafka 4.1's.
const METADATA_VERSION: i16 = 27;

impl Api {
    /// `kafka.md` 3.1.
    pub(super) fn api_versions(&self, request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
        let named = |name: &str| is_software_name(name.as_bytes());
        if version >= 3 && !(named(&request.client_software_name) && named(&request.client_software_version)) {
            return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest, ..Default::default() };
        }
        let served = ApiKey::ALL.iter().filter(|key| self.serves(**key));
        let level = METADATA_VERSION;
        ApiVersionsResponse {
            api_keys: served.map(|key| advertised(*key)).collect(),
            supported_features: vec![SupportedFeatureKey {
                name: "metadata.version".into(),
                min_version: level,
                max_version: level,
            }],
            finalized_features_epoch: 1,
            finalized_features: vec![FinalizedFeatureKey {
                name: "metadata.version".into(),
                max_version_level: level,
                min_version_level: level,
            }],
            ..Default::default()
        }
    }

    /// The answer, in version 0, to a version of ApiVersions that is not known: clients step down to the range in it.
    pub(in super::super) fn unsupported_api_versions(&self) -> ApiVersionsResponse {
        ApiVersionsResponse {
            error_code: ErrorCode::UnsupportedVersion,
            api_keys: vec![advertised(ApiKey::ApiVersions)],
            ..Default::default()
        }
    }
}

fn advertised(key: ApiKey) -> ApiVersion {
    let (min_version, max_version) = key.advertised();
    ApiVersion { api_key: key.code(), min_version, max_version }
}

/// Letters and digits, with dots and dashes in between.
fn is_software_name(name: &[u8]) -> bool {
    let inside = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    edge(name.first()) && edge(name.last()) && name.iter().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_begin_and_end_with_a_letter_or_digit() {
        for good in ["a", "librdkafka", "apache-kafka-java", "2.16.0-rc1"] {
            assert!(is_software_name(good.as_bytes()), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ä"] {
            assert!(!is_software_name(bad.as_bytes()), "{bad}");
        }
    }
}
