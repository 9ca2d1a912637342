//! Reviews: questions about who somebody is and what they may do. Nothing is stored.
//!
//! Source: kubernetes 1.33, `pkg/registry/{authentication,authorization}`.

use api::selector::FieldSelector;
use api::{ApiObject, Kind, Object, Status, codec};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes,
    ResourceRule, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use registry::Caller;
use registry::authorize::Attributes;

use crate::answer::{self, Answer};
use crate::body::{self, Decoded};
use crate::query::FieldValidation;
use crate::route::{Resource, not_allowed};
use crate::server::{Server, now};

/// Whether creating an object of the kind asks a question.
pub(crate) const fn is_review(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::TokenReview
            | Kind::SelfSubjectReview
            | Kind::SubjectAccessReview
            | Kind::LocalSubjectAccessReview
            | Kind::SelfSubjectAccessReview
            | Kind::SelfSubjectRulesReview
    )
}

/// Answers a question.
pub(crate) fn review(
    server: &Server,
    caller: &Caller,
    resource: &Resource,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Answer, Status> {
    let Decoded { object, .. } =
        body::object(resource.kind, headers, body, FieldValidation::Ignore)?;
    let answered = match &object {
        Object::TokenReview(asked) => token(server, asked)?.into_object(),
        Object::SelfSubjectReview(_) => myself(caller).into_object(),
        Object::SubjectAccessReview(asked) => {
            let status = access(server, &asked.spec)?;
            SubjectAccessReview { status: Some(status), ..asked.as_ref().clone() }.into_object()
        }
        Object::LocalSubjectAccessReview(asked) => local_access(server, asked, resource)?,
        Object::SelfSubjectAccessReview(asked) => {
            let spec = SubjectAccessReviewSpec {
                resource_attributes: asked.spec.resource_attributes.clone(),
                non_resource_attributes: asked.spec.non_resource_attributes.clone(),
                ..spec_of(caller)
            };
            let status = access(server, &spec)?;
            SelfSubjectAccessReview { status: Some(status), ..asked.as_ref().clone() }.into_object()
        }
        Object::SelfSubjectRulesReview(asked) => {
            let namespace = asked.spec.namespace.clone().unwrap_or_default();
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            let status = rules(server, caller, &namespace);
            SelfSubjectRulesReview { status: Some(status), ..asked.as_ref().clone() }.into_object()
        }
        _ => return Err(not_allowed()),
    };
    Ok(answer::json(StatusCode::CREATED, codec::encode(&answered)))
}

fn user_info(caller: &Caller) -> UserInfo {
    UserInfo {
        username: Some(caller.name.clone()),
        uid: (!caller.uid.is_empty()).then(|| caller.uid.clone()),
        groups: Some(caller.groups.clone()),
        extra: (!caller.extra.is_empty()).then(|| caller.extra.clone()),
    }
}

fn spec_of(caller: &Caller) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        user: Some(caller.name.clone()),
        uid: Some(caller.uid.clone()),
        groups: Some(caller.groups.clone()),
        extra: Some(caller.extra.clone()),
        ..SubjectAccessReviewSpec::default()
    }
}

fn myself(caller: &Caller) -> SelfSubjectReview {
    let mut review = SelfSubjectReview {
        status: Some(SelfSubjectReviewStatus { user_info: Some(user_info(caller)) }),
        ..SelfSubjectReview::default()
    };
    review.metadata.creation_timestamp = Some(now().to_meta());
    review
}

fn token(server: &Server, asked: &TokenReview) -> Result<TokenReview, Status> {
    let token = asked.spec.token.clone().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = asked.spec.audiences.clone().unwrap_or_default();
    let found = server.authenticator.token(&token, &audiences, &server.hub, now());
    let status = match found.accepted {
        Some((caller, audiences)) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(user_info(&caller)),
            audiences: (!audiences.is_empty()).then_some(audiences),
            error: None,
        },
        None => TokenReviewStatus {
            error: Some("invalid bearer token".to_owned()),
            ..TokenReviewStatus::default()
        },
    };
    Ok(TokenReview { status: Some(status), ..asked.clone() })
}

fn access(
    server: &Server,
    spec: &SubjectAccessReviewSpec,
) -> Result<SubjectAccessReviewStatus, Status> {
    let asked = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(attributes), None) => resource_attributes(attributes),
        (None, Some(attributes)) => path_attributes(attributes),
        _ => {
            return Err(Status::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    let caller = Caller {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    if caller.name.is_empty() && caller.groups.is_empty() {
        return Err(Status::bad_request("at least one of user or group must be specified"));
    }
    let decision = server.hub.read().authorizer.authorize(&caller, &asked);
    Ok(SubjectAccessReviewStatus {
        allowed: decision.allowed,
        reason: (!decision.reason.is_empty()).then_some(decision.reason),
        ..SubjectAccessReviewStatus::default()
    })
}

fn resource_attributes(attributes: &ResourceAttributes) -> Attributes {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Attributes {
        verb: text(&attributes.verb),
        group: text(&attributes.group),
        version: text(&attributes.version),
        resource: text(&attributes.resource),
        subresource: text(&attributes.subresource),
        namespace: text(&attributes.namespace),
        name: text(&attributes.name),
        path: String::new(),
        fields: FieldSelector::default(),
    }
}

fn path_attributes(attributes: &NonResourceAttributes) -> Attributes {
    Attributes {
        verb: attributes.verb.clone().unwrap_or_default(),
        path: attributes.path.clone().unwrap_or_default(),
        ..Attributes::default()
    }
}

fn local_access(
    server: &Server,
    asked: &LocalSubjectAccessReview,
    resource: &Resource,
) -> Result<Object, Status> {
    let mut spec = asked.spec.clone();
    let attributes = spec.resource_attributes.as_mut().ok_or_else(|| {
        Status::bad_request("resourceAttributes must be specified for a LocalSubjectAccessReview")
    })?;
    let namespace = attributes.namespace.get_or_insert_with(|| resource.namespace.clone());
    if *namespace != resource.namespace {
        return Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    let status = access(server, &spec)?;
    Ok(LocalSubjectAccessReview { spec, status: Some(status), ..asked.clone() }.into_object())
}

fn rules(server: &Server, caller: &Caller, namespace: &str) -> SubjectRulesReviewStatus {
    let state = server.hub.read();
    let (mut resource_rules, mut non_resource_rules) = (Vec::new(), Vec::new());
    for rule in state.authorizer.rules(caller, namespace) {
        if rule.resources.as_ref().is_some_and(|r| !r.is_empty()) {
            resource_rules.push(ResourceRule {
                api_groups: rule.api_groups.clone(),
                resource_names: rule.resource_names.clone(),
                resources: rule.resources.clone(),
                verbs: rule.verbs.clone(),
            });
        }
        if rule.non_resource_urls.as_ref().is_some_and(|u| !u.is_empty()) {
            non_resource_rules.push(NonResourceRule {
                non_resource_urls: rule.non_resource_urls.clone(),
                verbs: rule.verbs.clone(),
            });
        }
    }
    SubjectRulesReviewStatus {
        resource_rules,
        non_resource_rules,
        incomplete: false,
        evaluation_error: None,
    }
}
