//! `counterfoil policy` as people meet it: what is told of a field, what is found in rules, what is suggested, who is found.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::commands::{Bench, assert_fails, text};

fn shown(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The line of a schema file, from 1, that a declaration with a text begins on.
fn line_of(file: &str, declaration: &str, name: &str) -> usize {
    let at = file.find(name).unwrap();
    1 + file[..file[..at].rfind(declaration).unwrap()].matches('\n').count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn field_is_explained_with_its_rule_and_what_becomes_of_a_value() {
    let bench = Bench::new(60).await;
    let users = fs::read_to_string(bench.path().join("schemas/users.toml")).unwrap();
    let line = line_of(&users, "[[column]]", "name = \"email\"");
    // Neither the source nor the lake is asked.
    let environment =
        [("COUNTERFOIL_SOURCE__BASE_URL", "http://127.0.0.1:9"), ("COUNTERFOIL_LAKE__URL", "file:nowhere")];
    let told = bench.run_with(&environment, &["policy", "explain", "--offline", "users.email"]);
    assert_eq!(
        shown(&told),
        format!(
            "users.email\n  is          E-mail address with its local part masked.\n  path        attributes.email (text)\n  \
             stored      masked: the first letter and the domain of the address stay (mask(as=email))\n  \
             example     `zoe@example.com` is stored as `z***@example.com`\n  class       personal: about a person\n  \
             rule        ./schemas/users.toml:{line}, [[column]] `email` declares the path\n"
        )
    );
    assert_eq!(text(&told.stderr), "");

    let told = bench.run_with(&environment, &["policy", "explain", "customers.email_pseudonym"]);
    assert!(text(&told.stderr).contains("without the lake"), "{}", text(&told.stderr));
    let told = shown(&told);
    assert!(told.contains("domain `email`") && told.contains("is stored as `p1_"), "{told}");

    for (field, words) in [
        ("attributes.status", &["tickets.status\n", "stored as it is (keep)"][..]),
        ("tickets.relationships.foo", &["drops all inside of it", "not stored", "`relationships`"]),
        ("tierStr", &["[[custom]] `*Str` covers the attribute by pattern", "known after an extract"]),
        ("tickets.notesTxt", &["content: what people wrote", "not stored", "`*Txt`"]),
        (
            "tickets.statsu",
            &["no rule declares it, so it is dropped", "near        tickets.status (attributes.status)"],
        ),
        ("x y z", &["no rule declares it"]),
        ("", &["no rule declares it"]),
    ] {
        let told = shown(&bench.run(&["policy", "explain", "--offline", field]));
        for word in words {
            assert!(told.contains(word), "{field}: {word} is not in\n{told}");
        }
    }
    let told = json(&bench.run(&["policy", "explain", "--offline", "--format", "json", "users.email"]));
    assert_eq!(told["fields"][0]["method"], "mask(as=email)");
    assert_eq!(told["fields"][0]["rule"]["line"], line);
    assert_eq!(told["fields"][0]["example"]["stored"], "`z***@example.com`");
    let told = json(&bench.run(&["policy", "explain", "--offline", "--format", "json", "nothing"]));
    assert_eq!((&told["declared"], &told["fields"]), (&Value::from(false), &Value::from(Vec::<Value>::new())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_that_decides_is_told_among_several() {
    let bench = Bench::new(60).await;
    let file = bench.path().join("schemas/tickets.toml");
    let shipped = fs::read_to_string(&file).unwrap();
    let more = "\n[[custom]]\npattern = \"tier*\"\nclass = \"internal\"\n\n[[custom]]\npattern = \"tierStr\"\nclass = \"personal\"\n\
                method = \"mask\"\n";
    fs::write(&file, format!("{shipped}{more}")).unwrap();
    let whole = fs::read_to_string(&file).unwrap();
    let (by_name, longer) = (line_of(&whole, "[[custom]]", "\"tierStr\""), line_of(&whole, "[[custom]]", "\"tier*\""));
    let told = shown(&bench.run(&["policy", "explain", "--offline", "tickets.tierStr"]));
    for words in [
        format!("rule        ./schemas/tickets.toml:{by_name}, [[custom]] `tierStr` names the attribute"),
        format!("not         ./schemas/tickets.toml:{longer}, `tier*`: a rule by name decides before a pattern"),
        "`*Str`: a rule by name decides before a pattern".to_owned(),
        "stored as `***`".to_owned(),
    ] {
        assert!(told.contains(&words), "{words} is not in\n{told}");
    }
    let all = shown(&bench.run(&["policy", "explain", "--offline"]));
    assert!(all.lines().next().unwrap().starts_with("table"), "{all}");
    assert!(all.contains(&format!("./schemas/tickets.toml:{by_name}\n")), "{all}");
    let all = json(&bench.run(&["policy", "explain", "--offline", "--format", "json"]));
    let rules = all["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["path"] == "attributes.custom.tier*" && rule["line"] == longer));
    assert!(rules.iter().any(|rule| rule["column"] == "subject" || rule["method"] == "drop"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantine_is_kept_suggested_and_emptied_by_a_declaration() {
    let bench = Bench::new(300).await;
    let file = bench.path().join("schemas/tickets.toml");
    let shipped = fs::read_to_string(&file).unwrap();
    // Nothing decides over free text any more, and one of its attributes is marked sensitive.
    let at = shipped.find("[[custom]]\npattern = \"*Txt\"").unwrap();
    fs::write(&file, &shipped[..at]).unwrap();
    let nothing = bench.run(&["policy", "suggest"]);
    assert_eq!((shown(&nothing).as_str(), text(&nothing.stderr).contains("nothing was extracted yet")), ("", true));

    let extract = bench.run(&["extract"]);
    assert!(extract.status.success(), "{}", text(&extract.stderr));
    assert!(text(&extract.stderr).contains("`counterfoil policy suggest`"), "{}", text(&extract.stderr));
    let sql = "SELECT stream, path, json_type, reason, count > 0 AS counted, first_seen <= last_seen AS ordered, \
               run_id = (SELECT run_id FROM runs LIMIT 1) AS last_run FROM quarantine ORDER BY path";
    let rows = shown(&bench.run(&["query", "-e", sql, "--format", "csv"]));
    assert_eq!(
        rows.lines().skip(1).collect::<Vec<_>>(),
        [
            "tickets,attributes.custom.legacyScoreNum,number,undeclared,true,true,true",
            "tickets,attributes.custom.notesTxt,text,sensitive,true,true,true",
        ]
    );
    let described = shown(&bench.run(&["query", "-e", "DESCRIBE quarantine", "--format", "csv"]));
    assert!(described.contains("json_type"), "{described}");
    fs::create_dir_all(bench.path().join("checked")).unwrap();
    fs::write(bench.path().join("checked/seen.sql"), "-- name: seen\nSELECT path, count FROM quarantine\n").unwrap();
    assert!(bench.run(&["check", "checked"]).status.success());

    let told = shown(&bench.run(&["policy", "explain", "notesTxt"]));
    assert!(told.contains("nothing: the source marks it sensitive, and no rule names it"), "{told}");
    let told = shown(&bench.run(&["policy", "explain"]));
    assert!(told.contains("in quarantine") && told.contains("legacyScoreNum"), "{told}");
    let told = shown(&bench.run(&["policy", "explain", "tierStr"]));
    assert!(told.contains("does not mark it sensitive") && !told.contains("known after"), "{told}");

    let suggested = shown(&bench.run(&["policy", "suggest"]));
    assert!(suggested.contains("# pattern = \"notesTxt\"\n# class = \"personal\"\n# method = \"drop\""), "{suggested}");
    assert_eq!(suggested, shown(&bench.run(&["policy", "suggest", "--table", "tickets"])));
    assert_eq!(shown(&bench.run(&["policy", "suggest", "--table", "tags"])), "");
    let declared: Vec<&str> = suggested.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    fs::write(&file, format!("{}\n{}\n", &shipped[..at], declared.join("\n"))).unwrap();
    let extract = bench.run(&["extract"]);
    assert!(extract.status.success(), "{}", text(&extract.stderr));
    assert_eq!(shown(&bench.run(&["query", "-e", "SELECT path FROM quarantine", "--format", "ndjson"])), "");
    let suggested = bench.run(&["policy", "suggest"]);
    assert_eq!(shown(&suggested), "");
    assert!(text(&suggested.stderr).contains("nothing is in quarantine"), "{}", text(&suggested.stderr));
    let told = shown(&bench.run(&["policy", "explain", "legacyScoreNum"]));
    assert!(told.starts_with("tickets.custom_legacy_score\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shipped_policy_is_clean_before_and_after_an_extract() {
    let bench = Bench::new(200).await;
    for arguments in [&["policy", "lint", "--offline"][..], &["policy", "lint"]] {
        let clean = bench.run(arguments);
        assert!(text(&clean.stderr).contains("the policy is clean"), "{}", text(&clean.stderr));
        assert!(shown(&clean).lines().all(|line| line.contains(": note: ") || line.starts_with("  hint: ")));
    }
    assert!(bench.run(&["extract"]).status.success());
    let clean = bench.run(&["policy", "lint", "--format", "json"]);
    assert!(clean.status.success(), "{}{}", text(&clean.stdout), text(&clean.stderr));
    assert_eq!(json(&clean)["clean"], true);
}

/// A column with a path, a class and a method.
fn column(name: &str, path: &str, of_type: &str, class: &str, method: &str) -> String {
    format!(
        "\n[[column]]\nname = \"{name}\"\npath = \"{path}\"\ntype = \"{of_type}\"\nclass = \"{class}\"\nmethod = {method}\n\
         description = \"x\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lint_finds_what_is_wrong_and_what_may_not_be_meant() {
    let bench = Bench::new(200).await;
    assert!(bench.run(&["extract"]).status.success());
    let file = bench.path().join("schemas/tickets.toml");
    let shipped = fs::read_to_string(&file).unwrap();
    let last = shipped.matches('\n').count();
    let custom = |pattern: &str, class: &str, method: &str| {
        format!("\n[[custom]]\npattern = \"{pattern}\"\nclass = \"{class}\"\nmethod = {method}\n")
    };
    for (tail, code, findings) in [
        (
            column("a", "attributes.a", "int", "internal", "\"mask\"")
                + &column("b", "attributes.b", "text", "content", "\"keep\"")
                + &custom("*Num", "internal", "\"maks\"").replace("*Num", "xNum"),
            2,
            &[
                "error: method does not fit the type",
                "error: free text cannot be kept",
                "error: unknown method",
                "did you mean `mask`?",
            ][..],
        ),
        ("\nname = = 1\n".to_owned(), 2, &["error: schema file is not valid TOML"]),
        (
            column("prioritys", "attributes.prioritys", "int", "internal", "\"keep\""),
            2,
            &[
                "warning: no record ever had `attributes.prioritys`",
                "[unknown-field]",
                "did you mean `attributes.priority`?",
            ],
        ),
        (
            column("place", "attributes.preview", "text", "personal", "\"keep\"")
                .replace("attributes.preview", "attributes.somewhere"),
            2,
            &[
                "warning: personal column `place` is stored as it is [kept]",
                "warning: personal column `place` is new",
                "[widening]",
            ],
        ),
        (
            custom("tierStr", "personal", "\"keep\""),
            2,
            &[
                "warning: personal attributes of `tierStr`",
                "note: `*Str` and `tierStr` both cover `tierStr` [overlap]",
                "goes first: a rule by name",
            ],
        ),
        (
            custom("order*", "internal", "\"mask\""),
            2,
            &["warning: pattern `order*` covers ids such as `orderId`", "[keys]"],
        ),
        (
            custom("tireStr", "internal", "\"keep\""),
            2,
            &["warning: the source defines no attribute `tireStr`", "did you mean `tierStr`?"],
        ),
        (
            custom("vip*", "internal", "\"keep\""),
            0,
            &["note: pattern `vip*` covers no attribute that the source defines [unused]"],
        ),
        (
            column("tier", "attributes.custom.tierStr", "text", "internal", "\"keep\"")
                + &custom("tierStr", "internal", "\"keep\""),
            2,
            &["error: two rules for one field: this one can never match (pattern: tierStr)", "column `tier` on line"],
        ),
    ] {
        fs::write(&file, format!("{shipped}{tail}")).unwrap();
        let output = bench.run(&["policy", "lint"]);
        let found = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{tail}\n{found}{}", text(&output.stderr));
        for words in findings {
            assert!(found.contains(words), "{words} is not in\n{found}");
        }
        let lines = found.lines().filter(|line| line.starts_with("./schemas/tickets.toml:"));
        for line in lines {
            let number: usize = line.split(':').nth(1).unwrap().parse().unwrap();
            assert!(
                number >= 1 && (number > last || line.contains("[overlap]")),
                "the place is that of the rule: {line}"
            );
        }
        if code != 0 {
            assert!(text(&output.stderr).contains("error: the policy has findings"), "{}", text(&output.stderr));
        }
        let output = bench.run(&["policy", "lint", "--format", "json"]);
        assert_eq!((json(&output)["clean"] == true, output.status.code()), (code == 0, Some(code)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lint_names_files_that_hold_what_is_forbidden_now() {
    let bench = Bench::new(200).await;
    let file = bench.path().join("schemas/tickets.toml");
    let shipped = fs::read_to_string(&file).unwrap();
    let strict = shipped.replace(
        "pattern = \"*Str\"\nclass = \"internal\"\n",
        "pattern = \"*Str\"\nclass = \"internal\"\nmethod = \"mask\"\n",
    );
    assert_ne!(strict, shipped);
    assert!(bench.run(&["extract"]).status.success());
    fs::write(&file, &strict).unwrap();
    let found = bench.run(&["policy", "lint"]);
    assert_eq!(found.status.code(), Some(2));
    let found = text(&found.stdout);
    for words in ["still hold column `custom_tier`", "[still-stored]", "lake compact --apply-policy"] {
        assert!(found.contains(words), "{words} is not in\n{found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pseudonym_is_the_one_that_the_lake_holds() {
    let bench = Bench::new(90).await;
    assert!(bench.run(&["extract"]).status.success());
    // The organisation's own record of a customer with an address.
    let sql = "SELECT customer_id, email_pseudonym FROM customers WHERE email_pseudonym IS NOT NULL ORDER BY 1 LIMIT 1";
    let row = json(&bench.run(&["query", "-e", sql, "--format", "ndjson"]));
    let organisation = bench.sandbox.organisation();
    let record = (0..organisation.customers()).map(|number| organisation.customer(number));
    let record = record.into_iter().find(|record| record["id"] == row["customer_id"]).unwrap();
    let email = record["attributes"]["emails"][0]["email"].as_str().unwrap().to_owned();

    let found = bench.run(&["policy", "pseudonym", "customers.email_pseudonym", &email]);
    assert_eq!(shown(&found), format!("{}\n", row["email_pseudonym"].as_str().unwrap()));
    assert_eq!(text(&found.stderr), "");
    let mut piped = bench
        .command(&["policy", "pseudonym", "customers.email_pseudonym", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(format!("{email}\r\n").as_bytes()).unwrap();
    assert_eq!(piped.wait_with_output().unwrap().stdout, found.stdout);

    let of = |column: &str, value: &str| bench.run(&["policy", "pseudonym", column, value]);
    assert_fails(
        &of("customers.email_pseudonim", "x"),
        2,
        &["no such column", "did you mean `customers.email_pseudonym`?"],
    );
    assert_fails(&of("email_pseudonym", "x"), 2, &["no such column", "customers.email_pseudonym"]);
    assert_fails(
        &of("users.email", "needle@example.com"),
        2,
        &["the column holds no pseudonyms", "method: mask(as=email)", "users.toml:", "customers.email_pseudonym"],
    );
    assert!(!text(&of("users.email", "needle@example.com").stderr).contains("needle"));
    assert_fails(&of("customers.email_pseudonym", ""), 2, &["the value is empty"]);
    assert_fails(&of("customers.email_pseudonym", "-"), 2, &["the value is empty"]);
    let help = shown(&bench.run(&["policy", "pseudonym", "--help"]));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("- to read it from standard input, which keeps it out of the shell's history"), "{help}");
}
