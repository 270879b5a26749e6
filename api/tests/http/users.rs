//! Accounts and roles, for staff.

use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    shop::{Answer, STAFF, Shop, bearer, eventually, send, with_shop, with_still_shop},
    tokens::claims,
};

impl Shop {
    async fn give_role(&self, staff: &str, user: &str, role: &str) -> Answer {
        let request = self.request(Method::PATCH, &format!("/admin/users/{user}"));
        send(bearer(request, staff).json(&json!({ "role": role }))).await
    }
}

fn id(token: &str) -> String {
    claims(token)["sub"].as_str().unwrap().to_owned()
}

pub fn emails(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn staff_find_accounts_by_the_beginning_of_their_address() {
    with_shop(async |shop| {
        for name in ["bob", "ann.b", "ann.a", "anne", "an", "ann.c"] {
            shop.register(&format!("{name}@example.com")).await;
        }
        let staff = shop.staff().await;
        let found = shop.get("/admin/users?q=ANN.", &staff).await.json();
        assert_eq!(emails(&found), ["ann.a@example.com", "ann.b@example.com", "ann.c@example.com"]);
        assert_eq!((&found["hasMore"], &found["nextCursor"]), (&json!(false), &Value::Null));
        let members: Vec<_> = found["data"][0].as_object().unwrap().keys().collect();
        assert_eq!(members, ["createdAt", "email", "id", "role"], "never a hash");

        let first = shop.get("/admin/users?q=ann&limit=2", &staff).await.json();
        assert_eq!(emails(&first), ["ann.a@example.com", "ann.b@example.com"]);
        // Pages are stable under what is added before and after.
        shop.register("ann.0@example.com").await;
        let rest = format!("/admin/users?q=ann&limit=2&cursor={}", first["nextCursor"].as_str().unwrap());
        let rest = shop.get(&rest, &staff).await.json();
        assert_eq!((emails(&rest), &rest["hasMore"]), (vec!["ann.c@example.com", "anne@example.com"], &json!(false)));

        assert_eq!(emails(&shop.get("/admin/users", &staff).await.json()).len(), 8);
        assert_eq!(emails(&shop.get("/admin/users?q=.*", &staff).await.json()), [""; 0], "a prefix is no pattern");
        let wrong = shop.get("/admin/users?limit=0&cursor=x&role=staff", &staff).await;
        assert_eq!(wrong.pointers(), ["/cursor", "/limit", "/role"]);
    })
    .await;
}

#[tokio::test]
async fn a_role_is_known_everywhere_within_five_seconds() {
    with_still_shop(async |shop| {
        let other = shop.beside(|_| {}).await;
        let (staff, customer) = (shop.staff().await, shop.register("ann@example.com").await);
        let soon = || shop.clock.advance(SignedDuration::from_millis(5_001));
        let allowed = async || {
            let (here, there) = (shop.get("/admin/users", &customer).await, other.get("/admin/users", &customer).await);
            (here.status.as_u16(), there.status.as_u16())
        };
        assert_eq!(allowed().await, (403, 403));
        let given = shop.give_role(&staff, &id(&customer), "staff").await;
        assert_eq!((given.status.as_u16(), &given.json()["role"]), (200, &json!("staff")));
        soon();
        assert_eq!(allowed().await, (200, 200));
        assert_eq!(shop.give_role(&staff, &id(&customer), "customer").await.status, 200);
        soon();
        assert_eq!(allowed().await, (403, 403));
        assert_eq!(shop.get("/auth/me", &customer).await.json()["role"], "customer", "the session goes on");
    })
    .await;
}

#[tokio::test]
async fn nobody_takes_their_own_role_away() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        assert_eq!(shop.give_role(&staff, &id(&staff), "customer").await.problem(), (409, "own_role".into()));
        assert_eq!(shop.give_role(&staff, &id(&staff), "staff").await.status, 200);
        assert_eq!(shop.get("/auth/me", &staff).await.json()["role"], "staff");
        let wrong = shop.give_role(&staff, &id(&staff), "root").await;
        assert_eq!((wrong.problem(), wrong.pointers()), ((400, "invalid_request".into()), vec!["/role".into()]));
        assert_eq!(shop.give_role(&staff, "nobody", "staff").await.problem(), (404, "not_found".into()));
    })
    .await;
}

#[tokio::test]
async fn the_configured_staff_account_is_staff_again_after_a_start() {
    with_shop(async |shop| {
        let (staff, second) = (shop.staff().await, shop.register("ann@example.com").await);
        assert_eq!(shop.give_role(&staff, &id(&second), "staff").await.status, 200);
        eventually("the second member of the staff", || async {
            let demoted = shop.give_role(&second, &id(&staff), "customer").await;
            (demoted.status == 200).then_some(())
        })
        .await;
        shop.replica(|_| {}).await;
        let role = eventually("the configured role", || async {
            let login = shop.login(STAFF.0, STAFF.1).await;
            let me = shop.get("/auth/me", &login.token()).await.json();
            (me["role"] == "staff").then_some(())
        });
        role.await;
    })
    .await;
}
