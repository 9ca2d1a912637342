//! Jobs with rules of their own for what ends them, jobs that wait, and jobs that meet the next one of
//! their schedule.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tests::{Cluster, eventually};

use super::SOON;

/// What comes by the minute has been twice by then.
const TWO_MINUTES: Duration = Duration::from_secs(150);
/// In the field's time zone the clock is five hours and three quarters ahead, all year.
const ZONE: &str = "Asia/Kathmandu";
const ZONE_MINUTES: u64 = 5 * 60 + 45;
const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: { name: NAME, namespace: jobs }
spec:
  RULES
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
        - { name: work, image: "kprov.local/busybox:1", command: [/bin/sh, -c, "SCRIPT"] }
"#;
const CRON_JOB: &str = r#"
apiVersion: batch/v1
kind: CronJob
metadata: { name: NAME, namespace: jobs }
spec:
  schedule: "SCHEDULE"
  RULES
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 1
          containers:
            - { name: work, image: "kprov.local/busybox:1", command: [/bin/sh, -c, "SCRIPT"] }
"#;

pub(crate) async fn follow_their_rules(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create namespace jobs").await?;
    tokio::try_join!(meet_the_next_of_their_schedule(cluster), async {
        failures_are_judged_by_rules(cluster).await?;
        some_numbers_may_be_enough(cluster).await?;
        wait_until_they_may_begin(cluster).await
    })?;
    cluster.kubectl("delete namespace jobs --timeout=60s").await?;
    Ok(())
}

fn job(name: &str, rules: &str, script: &str) -> String {
    JOB.replace("NAME", name).replace("RULES", rules).replace("SCRIPT", script)
}

fn cron_job(name: &str, schedule: &str, rules: &str, script: &str) -> String {
    let text = CRON_JOB.replace("NAME", name).replace("SCHEDULE", schedule);
    text.replace("RULES", rules).replace("SCRIPT", script)
}

async fn failures_are_judged_by_rules(cluster: &Cluster) -> Result<()> {
    let rules = "podFailurePolicy: { rules: [\
                 { action: Ignore, onPodConditions: [{ type: DisruptionTarget }] }, \
                 { action: FailJob, onExitCodes: { operator: In, values: [42] } }] }";
    cluster.create(&job("hopeless", rules, "exit 42")).await?;
    let failed = "wait job/hopeless -n jobs --for=condition=Failed --timeout=60s";
    cluster.kubectl(failed).await?;
    let path = "{.status.failed} {.status.conditions[?(@.type==\"Failed\")].reason} \
                {.status.conditions[?(@.type==\"Failed\")].message}";
    let status = cluster.get("job/hopeless -n jobs", path).await?.join(" ");
    let begin = "1 PodFailurePolicy Container work for pod jobs/hopeless-";
    let end = " failed with exit code 42 matching FailJob rule at index 1";
    ensure!(status.starts_with(begin) && status.ends_with(end), "{status}");

    // Whoever is evicted has not failed, though no failure is allowed.
    let script = "trap 'exit 3' TERM; sleep 1000 & wait";
    cluster.create(&job("moved", &format!("backoffLimit: 0\n  {rules}"), script)).await?;
    let running = "{.items[?(@.status.phase==\"Running\")].metadata.name}";
    let pod = async |but: &str| -> Result<String> {
        let (name, _) = eventually("a pod that runs", SOON, async || {
            let pods = cluster.get("pods -n jobs -l job-name=moved", running).await?;
            pods.into_iter().find(|name| name != but).context("none runs")
        })
        .await?;
        Ok(name)
    };
    let first = pod("").await?;
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{first}","namespace":"jobs"}}}}"#
    );
    let path = format!("/api/v1/namespaces/jobs/pods/{first}/eviction");
    let evicted = cluster.kubectl_with(&["create", "--raw", &path, "-f", "-"], &eviction).await?;
    evicted.expect_success("an eviction")?;
    pod(&first).await?;
    eventually("the first pod to be done with", SOON, async || {
        let left = cluster.kubectl("get pods -n jobs -l job-name=moved -o name").await?;
        ensure!(!left.contains(&first), "{left}");
        Ok(())
    })
    .await?;
    let status = cluster.get("job/moved -n jobs", "{.status.active} {.status.failed}").await?;
    ensure!(status == ["1"], "{status:?}");
    cluster.kubectl("delete job/moved job/hopeless -n jobs").await?;
    Ok(())
}

async fn some_numbers_may_be_enough(cluster: &Cluster) -> Result<()> {
    let rules = "completions: 3\n  parallelism: 3\n  completionMode: Indexed\n  \
                 successPolicy: { rules: [{ succeededIndexes: \"1\" }] }";
    let script = "[ $JOB_COMPLETION_INDEX = 1 ] || sleep 1000";
    cluster.create(&job("led", rules, script)).await?;
    cluster.kubectl("wait job/led -n jobs --for=condition=Complete --timeout=60s").await?;
    let path = "{.status.completedIndexes} {.status.succeeded} {.status.active} \
                {range .status.conditions[*]}{.type}={.reason} {end}";
    let status = cluster.get("job/led -n jobs", path).await?;
    let wanted = ["1", "1", "SuccessCriteriaMet=SuccessPolicy", "Complete=SuccessPolicy"];
    ensure!(status == wanted, "{status:?}");
    let path = "{.items[?(@.status.phase==\"Running\")].metadata.name}";
    let running = cluster.get("pods -n jobs -l job-name=led", path).await?;
    ensure!(running.is_empty(), "the job is complete, and still runs {running:?}");
    cluster.kubectl("delete job/led -n jobs").await?;
    Ok(())
}

async fn wait_until_they_may_begin(cluster: &Cluster) -> Result<()> {
    cluster.create(&job("held", "suspend: true", "sleep 2")).await?;
    let path = "{.status.startTime} {.status.conditions[?(@.type==\"Suspended\")].status} \
                {.status.conditions[?(@.type==\"Suspended\")].reason}";
    let is = async |wanted: &[&str]| -> Result<()> {
        eventually("the job to be held", SOON, async || {
            let told = cluster.get("job/held -n jobs", path).await?;
            ensure!(told == wanted, "{told:?}");
            Ok(())
        })
        .await?;
        Ok(())
    };
    is(&["True", "JobSuspended"]).await?;
    let pods = "{.items[*].metadata.name}";
    let pods = cluster.get("pods -n jobs -l job-name=held", pods).await?;
    ensure!(pods.is_empty(), "a job that is held has {pods:?}");
    let suspend =
        |held: bool| format!(r#"patch job/held -n jobs -p {{"spec":{{"suspend":{held}}}}}"#);
    cluster.kubectl(&suspend(false)).await?;
    cluster.kubectl("wait job/held -n jobs --for=condition=Complete --timeout=60s").await?;
    let reason = "{.status.conditions[?(@.type==\"Suspended\")].reason}";
    let reason = cluster.get("job/held -n jobs", reason).await?;
    ensure!(reason == ["JobResumed"], "{reason:?}");
    cluster.kubectl("delete job/held -n jobs").await?;
    Ok(())
}

async fn meet_the_next_of_their_schedule(cluster: &Cluster) -> Result<()> {
    let long = "sleep 1000";
    let refused = cron_job("lost", "* * * * *", "timeZone: Nowhere/City", long);
    let refused = cluster.kubectl_with(&["create", "-f", "-"], &refused).await?;
    let why = "spec.timeZone: Invalid value: \"Nowhere/City\": unknown time zone Nowhere/City";
    ensure!(refused.code != 0 && refused.stderr.contains(why), "{refused:?}");
    for policy in ["Forbid", "Replace"] {
        let rules = format!("concurrencyPolicy: {policy}");
        let name = policy.to_lowercase();
        cluster.create(&cron_job(&name, "* * * * *", &rules, long)).await?;
    }
    // A minute of the other zone's day; the same one is hours away here.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let due = (now + 30) / 60 + 1;
    let of_day = (due + ZONE_MINUTES) % (24 * 60);
    let schedule = format!("{} {} * * *", of_day % 60, of_day / 60);
    for (name, rules) in [("zoned", format!("timeZone: {ZONE}")), ("here", String::new())] {
        cluster.create(&cron_job(name, &schedule, &rules, "true")).await?;
    }
    let active = async |name: &str| -> Result<Vec<String>> {
        cluster.get(&format!("cronjob/{name} -n jobs"), "{.status.active[*].name}").await
    };
    let (first, _) = eventually("the first of both", TWO_MINUTES, async || {
        let first = [active("forbid").await?, active("replace").await?].concat();
        ensure!(first.len() == 2, "{first:?}");
        Ok(first)
    })
    .await?;
    eventually("one to be replaced", TWO_MINUTES, async || {
        let now = active("replace").await?;
        ensure!(now.len() == 1 && now[0] != first[1], "{now:?}");
        let jobs = cluster.get("jobs -n jobs", "{.items[*].metadata.name}").await?;
        ensure!(jobs.contains(&now[0]) && !jobs.contains(&first[1]), "{jobs:?}");
        Ok(())
    })
    .await?;
    eventually("one to be refused", TWO_MINUTES, async || {
        let events = "get events -n jobs --field-selector=reason=JobAlreadyActive";
        let events = cluster.kubectl(events).await?;
        let why = "Not starting job because prior execution is running and concurrency policy is \
                   Forbid";
        ensure!(events.contains("cronjob/forbid") && events.contains(why), "{events}");
        Ok(())
    })
    .await?;
    ensure!(active("forbid").await? == first[..1], "the first one was not left alone");
    eventually("the one of the other zone", TWO_MINUTES, async || {
        let jobs = cluster.get("jobs -n jobs", "{.items[*].metadata.name}").await?;
        ensure!(jobs.contains(&format!("zoned-{due}")), "{jobs:?}");
        ensure!(!jobs.iter().any(|job| job.starts_with("here-")), "{jobs:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete cronjobs --all -n jobs").await?;
    Ok(())
}
