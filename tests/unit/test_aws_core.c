/* The parts of the AWS client that need no network: parameters, settings files, endpoints, error
 * answers, URLs. */
#include "tests/unit/kit.h"

#include <unistd.h>

#include "aws/client.h"
#include "aws/client_impl.h"
#include "aws/failure.h"
#include "aws/kms.h"
#include "aws/process.h"
#include "aws/profile.h"
#include "aws/query.h"
#include "aws/rds.h"

/* Query -------------------------------------------------------------------------------------- */

static void test_query(void **state)
{
    AwsTag tags[] = {
        {"a b", "c&d"}, {"aws:cloudformation:stack", "x"}, {AWS_RUN_TAG, "old"}, {"empty", ""}};
    const char *names[] = {"sg-1", "sg-2"};
    Query query;

    (void)state;
    query_init(&query, "X", "1");
    query_str(&query, "None", NULL);
    query_str(&query, "S", "\xc3\xa9 /~");
    query_num(&query, "N", (AwsNum){.set = false});
    query_num(&query, "Zero", aws_num(0));
    query_bool(&query, "U", AWS_UNSET);
    query_bool(&query, "F", AWS_FALSE);
    query_names(&query, "G.V", (AwsNames){names, 2});
    query_pairs(&query, "P.F", "Name", "Value", (AwsTags){tags, 1});
    query_tags(&query, (AwsTags){tags, 4}, "r-1");
    assert_string_equal(
        buf_str(&query.body),
        "Action=X&Version=1&S=%C3%A9%20%2F~&Zero=0&F=false&G.V.1=sg-1&G.V.2=sg-2"
        "&P.F.1.Name=a%20b&P.F.1.Value=c%26d"
        "&Tags.Tag.1.Key=a%20b&Tags.Tag.1.Value=c%26d&Tags.Tag.2.Key=empty&Tags.Tag.2.Value="
        "&Tags.Tag.3.Key=keybridge%3Arun&Tags.Tag.3.Value=r-1");
    query_fini(&query);
    query_init(&query, "X", "1");
    query_tags(&query, (AwsTags){&tags[2], 1}, NULL); /* without a run it stays as it is */
    assert_string_equal(buf_str(&query.body),
                        "Action=X&Version=1&Tags.Tag.1.Key=keybridge%3Arun&Tags.Tag.1.Value=old");
    query_fini(&query);
}

/* Settings files ----------------------------------------------------------------------------- */

typedef struct Files {
    char config[64];
    char credentials[64];
} Files;

static void write_file(char *path, const char *text)
{
    int fd;
    FILE *file;

    snprintf(path, 64, "%s", "/tmp/keybridge-unit.XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    file = fdopen(fd, "w");
    fputs(text, file);
    fclose(file);
}

static void clear_environment(void)
{
    static const char *const names[] = {"AWS_ENDPOINT_URL",
                                        "AWS_ENDPOINT_URL_RDS",
                                        "AWS_ENDPOINT_URL_ROUTE_53",
                                        "AWS_ENDPOINT_URL_STS",
                                        "AWS_ENDPOINT_URL_KMS",
                                        "AWS_USE_FIPS_ENDPOINT",
                                        "AWS_USE_DUALSTACK_ENDPOINT",
                                        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
                                        "AWS_PROFILE",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_MAX_ATTEMPTS",
                                        "AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unsetenv(names[i]);
}

static Profiles *load(Files *files, const char *config, const char *credentials, Err *err)
{
    Profiles *profiles;

    clear_environment();
    write_file(files->config, config);
    write_file(files->credentials, credentials);
    setenv("AWS_CONFIG_FILE", files->config, 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", files->credentials, 1);
    profiles = profiles_load(err);
    return profiles;
}

static void drop(Files *files, Profiles *profiles)
{
    profiles_free(profiles);
    unlink(files->config);
    unlink(files->credentials);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
}

static void assert_text(const char *got, const char *wanted)
{
    if (!wanted)
        assert_null(got);
    else {
        assert_non_null(got);
        assert_string_equal(got, wanted);
    }
}

static void test_profiles(void **state)
{
    Err err = ERR_INIT;
    Files files;
    Profiles *p = load(&files,
                       "# a comment\n"
                       "[default]\n"
                       "region = eu-west-1\n"
                       "Output=json\n"
                       "\n"
                       "[profile \"two words\"]\n"
                       "region=us-east-1\n"
                       "s3 =\n"
                       "  max_concurrent_requests = 20\n"
                       "cli_pager = first\n"
                       "   continued, not = a setting\n"
                       "role_arn = arn:aws:iam::1:role/x\n"
                       "[services lab]\n"
                       "rds =\n"
                       "    endpoint_url = http://127.0.0.1:1\n"
                       "  other=x\n"
                       "route_53 =\n"
                       "  endpoint_url = http://127.0.0.1:2\n"
                       "[plugins]\n"
                       "anything = here\n"
                       "[profile x]\n"
                       "region = first\n"
                       "region = second\n",
                       "; a comment\n"
                       "[default]\n"
                       "aws_access_key_id = AKID\n"
                       "aws_secret_access_key=se=cret/+#;x\n"
                       "region = from-credentials\n",
                       &err);

    (void)state;
    assert_non_null(p);
    assert_text(profiles_get(p, PROFILE_CONFIG, "profile", "default", "region"), "eu-west-1");
    assert_text(profiles_setting(p, "default", "region"), "from-credentials");
    assert_text(profiles_get(p, PROFILE_CONFIG, "profile", "default", "output"), "json");
    assert_text(profiles_setting(p, "default", "aws_secret_access_key"), "se=cret/+#;x");
    assert_text(profiles_setting(p, "two words", "region"), "us-east-1");
    assert_text(profiles_setting(p, "two words", "s3.max_concurrent_requests"), "20");
    assert_text(profiles_setting(p, "two words", "role_arn"), "arn:aws:iam::1:role/x");
    assert_text(profiles_setting(p, "two words", "cli_pager"), "first");
    assert_text(profiles_get(p, PROFILE_CONFIG, "services", "lab", "rds.endpoint_url"),
                "http://127.0.0.1:1");
    assert_text(profiles_get(p, PROFILE_CONFIG, "services", "lab", "rds.other"), "x");
    assert_text(profiles_get(p, PROFILE_CONFIG, "services", "lab", "route_53.endpoint_url"),
                "http://127.0.0.1:2");
    assert_text(profiles_setting(p, "x", "region"), "second");
    assert_text(profiles_setting(p, "x", "anything"), NULL);
    assert_true(profiles_has(p, "two words"));
    assert_false(profiles_has(p, "lab"));
    drop(&files, p);
}

static void test_profile_errors(void **state)
{
    static const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"region = x\n", ":1: a setting before the first section"},
        {"[default\n", ":1: a section without its \"]\""},
        {"[default]\n\nregion\n", ":3: neither a section nor \"key = value\""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Err err = ERR_INIT;
        Files files;
        Profiles *p = load(&files, cases[i].text, "", &err);

        assert_null(p);
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_string_equal(err.text + strlen(files.config), cases[i].error);
        drop(&files, p);
    }
}

/* Endpoints ---------------------------------------------------------------------------------- */

static const char *SERVICES = "[profile lab]\nservices = lab\nendpoint_url = http://whole/\n"
                              "[services lab]\nrds =\n  endpoint_url = http://only-rds:1\n";

static void test_own_endpoints(void **state)
{
    static const struct {
        const AwsService *service;
        const char *region;
        const char *fips;
        const char *url;
        const char *signing;
    } cases[] = {
        {&aws_service_rds, "eu-west-1", NULL, "https://rds.eu-west-1.amazonaws.com", "eu-west-1"},
        {&aws_service_kms, "cn-north-1", NULL, "https://kms.cn-north-1.amazonaws.com.cn",
         "cn-north-1"},
        {&aws_service_sts, "us-gov-west-1", NULL, "https://sts.us-gov-west-1.amazonaws.com",
         "us-gov-west-1"},
        {&aws_service_sts, "us-east-1", "true", "https://sts-fips.us-east-1.amazonaws.com",
         "us-east-1"},
        {&aws_service_rds, "us-gov-east-1", "true", "https://rds.us-gov-east-1.amazonaws.com",
         "us-gov-east-1"},
        {&aws_service_kms, "us-gov-east-1", "true", "https://kms-fips.us-gov-east-1.amazonaws.com",
         "us-gov-east-1"},
        {&aws_service_route53, "eu-west-1", NULL, "https://route53.amazonaws.com", "us-east-1"},
        {&aws_service_route53, NULL, NULL, "https://route53.amazonaws.com", "us-east-1"},
        {&aws_service_route53, "eu-west-1", "true", "https://route53-fips.amazonaws.com",
         "us-east-1"},
        {&aws_service_route53, "cn-north-1", NULL, "https://route53.amazonaws.com.cn",
         "cn-northwest-1"},
        {&aws_service_route53, "us-gov-east-1", "true", "https://route53.us-gov.amazonaws.com",
         "us-gov-west-1"},
        {&aws_service_rds, "us-iso-east-1", NULL, "https://rds.us-iso-east-1.c2s.ic.gov",
         "us-iso-east-1"},
    };
    Err err = ERR_INIT;
    Files files;
    Profiles *p = load(&files, "", "", &err);
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        EndpointQuestion question = {
            .service = cases[i].service, .region = cases[i].region, .profile = "default"};
        Endpoint out;

        if (cases[i].fips)
            setenv("AWS_USE_FIPS_ENDPOINT", cases[i].fips, 1);
        else
            unsetenv("AWS_USE_FIPS_ENDPOINT");
        assert_true(endpoint_find(p, &question, &arena, &out, &err));
        assert_string_equal(out.url, cases[i].url);
        assert_string_equal(out.region, cases[i].signing);
    }
    arena_fini(&arena);
    drop(&files, p);
}

static const char *url_of(const Profiles *p, const AwsService *service, const char *option,
                          Arena *arena)
{
    EndpointQuestion question = {
        .service = service, .region = "eu-west-1", .override = option, .profile = "lab"};
    Err err = ERR_INIT;
    Endpoint out;

    if (!endpoint_find(p, &question, arena, &out, &err))
        fail_msg("%s", err.text);
    return out.url;
}

static void test_endpoint_order(void **state)
{
    Err err = ERR_INIT;
    Files files;
    Profiles *p = load(&files, SERVICES, "", &err);
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    assert_string_equal(url_of(p, &aws_service_rds, NULL, &arena), "http://only-rds:1");
    assert_string_equal(url_of(p, &aws_service_kms, NULL, &arena), "http://whole");
    setenv("AWS_ENDPOINT_URL", "http://env/base/", 1);
    assert_string_equal(url_of(p, &aws_service_rds, NULL, &arena), "http://env/base");
    setenv("AWS_ENDPOINT_URL_ROUTE_53", "http://dns", 1);
    assert_string_equal(url_of(p, &aws_service_route53, NULL, &arena), "http://dns");
    assert_string_equal(url_of(p, &aws_service_rds, "http://option", &arena), "http://option");
    setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", 1);
    assert_string_equal(url_of(p, &aws_service_rds, NULL, &arena),
                        "https://rds.eu-west-1.amazonaws.com");
    assert_string_equal(url_of(p, &aws_service_rds, "http://option", &arena), "http://option");
    arena_fini(&arena);
    clear_environment();
    drop(&files, p);
}

static void test_endpoint_errors(void **state)
{
    static const struct {
        const char *variable;
        const char *value;
        const char *region;
        const char *error;
    } cases[] = {
        {"AWS_ENDPOINT_URL", "ftp://x", "eu-west-1",
         "the endpoint in AWS_ENDPOINT_URL isn't a plain http or https URL"},
        {"AWS_ENDPOINT_URL_RDS", "http://u:p@x", "eu-west-1",
         "the endpoint in AWS_ENDPOINT_URL_RDS isn't a plain http or https URL"},
        {"AWS_ENDPOINT_URL", "http://x/?a=b", "eu-west-1",
         "the endpoint in AWS_ENDPOINT_URL isn't a plain http or https URL"},
        {"AWS_USE_DUALSTACK_ENDPOINT", "true", "eu-west-1",
         "dual-stack endpoints aren't supported: set AWS_ENDPOINT_URL_RDS instead of AWS_USE_DUALSTACK_ENDPOINT"},
        {"AWS_PROFILE", "", "evil.example.com/", "\"evil.example.com/\" can't be an AWS region"},
        {"AWS_PROFILE", "", "", "\"\" can't be an AWS region"},
    };
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        EndpointQuestion question = {
            .service = &aws_service_rds, .region = cases[i].region, .profile = "default"};
        Err err = ERR_INIT;
        Files files;
        Profiles *p = load(&files, "", "", &err);
        Endpoint out;

        setenv(cases[i].variable, cases[i].value, 1);
        assert_false(endpoint_find(p, &question, &arena, &out, &err));
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_string_equal(err.text, cases[i].error);
        drop(&files, p);
    }
    arena_fini(&arena);
    clear_environment();
}

static void test_urls(void **state)
{
    static const struct {
        const char *url;
        const char *host, *name, *path, *query;
    } cases[] = {
        {"https://rds.eu-west-1.amazonaws.com/", "rds.eu-west-1.amazonaws.com",
         "rds.eu-west-1.amazonaws.com", "/", ""},
        {"http://127.0.0.1:80", "127.0.0.1", "127.0.0.1", "/", ""},
        {"http://127.0.0.1:8080/a/b?c=d#e", "127.0.0.1:8080", "127.0.0.1", "/a/b", "c=d"},
        {"https://x:443?q", "x", "x", "/", "q"},
        {"https://x:80/", "x:80", "x", "/", ""},
        {"http://[fd00:ec2::254]/latest", "[fd00:ec2::254]", "fd00:ec2::254", "/latest", ""},
        {"http://[::1]:99/", "[::1]:99", "::1", "/", ""},
        {"HTTP://X/", "X", "X", "/", ""},
        {"ftp://x/", NULL, NULL, NULL, NULL},
        {"http://", NULL, NULL, NULL, NULL},
        {"http://a b/", NULL, NULL, NULL, NULL},
        {"http://user@host/", NULL, NULL, NULL, NULL},
        {"//x", NULL, NULL, NULL, NULL},
    };
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        HttpUrl out;

        assert_int_equal(http_url(cases[i].url, &arena, &out), cases[i].host != NULL);
        if (!cases[i].host)
            continue;
        assert_string_equal(out.host, cases[i].host);
        assert_string_equal(out.name, cases[i].name);
        assert_string_equal(out.path, cases[i].path);
        assert_string_equal(out.query, cases[i].query);
    }
    arena_fini(&arena);
}

/* Error answers ------------------------------------------------------------------------------ */

static void test_failures(void **state)
{
    static const struct {
        AwsProtocol protocol;
        int status;
        const char *head;
        const char *body;
        const char *text;
        const char *code;
        bool transient;
        const char *hint;
    } cases[] = {
        {AWS_QUERY, 400, "x-amzn-RequestId: r-1\r\n",
         "<ErrorResponse xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><Error><Type>Sender</Type>"
         "<Code>KMSKeyNotAccessibleFault</Code><Message>The specified KMS key is not enabled.</Message></Error>"
         "<RequestId>r-2</RequestId></ErrorResponse>",
         "RDS CopyDBSnapshot: KMSKeyNotAccessibleFault: The specified KMS key is not enabled. (request id r-1)",
         "KMSKeyNotAccessibleFault", false, "the key must be in this region"},
        {AWS_QUERY, 400, "",
         "<ErrorResponse><Errors><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></Errors>"
         "<RequestID>r-2</RequestID></ErrorResponse>",
         "RDS CopyDBSnapshot: Throttling: Rate exceeded (request id r-2)", "Throttling", true, ""},
        {AWS_QUERY, 403, "",
         "<ErrorResponse><Error><Code>AccessDenied</Code><Message>User x is not authorized</Message></Error>"
         "<RequestId>r</RequestId></ErrorResponse>",
         "RDS CopyDBSnapshot: AccessDenied: User x is not authorized (request id r)",
         "AccessDenied", false, "allow rds:CopyDBSnapshot for this identity"},
        {AWS_QUERY, 403, "",
         "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature does not match.\n\n"
         "The Canonical String was\n'x-amz-security-token:SECRET'</Message></Error></ErrorResponse>",
         "RDS CopyDBSnapshot: SignatureDoesNotMatch: The request signature does not match. (request id none)",
         "SignatureDoesNotMatch", false, "the secret access key doesn't belong"},
        {AWS_QUERY, 503, "", "<html><body>busy</body>",
         "RDS CopyDBSnapshot: HTTP 503 (request id none)", "HTTP 503", true, ""},
        {AWS_QUERY, 429, "", "", "RDS CopyDBSnapshot: HTTP 429 (request id none)", "HTTP 429", true,
         ""},
        {AWS_JSON, 400, "x-amzn-RequestId: r-3\r\n",
         "{\"__type\":\"com.amazonaws.kms#NotFoundException:http://x\",\"message\":\"no such key\"}",
         "RDS CopyDBSnapshot: NotFoundException: no such key (request id r-3)", "NotFoundException",
         false, "a key of another account"},
        {AWS_JSON, 400, "", "{\"__type\":\"ExpiredTokenException\",\"Message\":\"expired\"}",
         "RDS CopyDBSnapshot: ExpiredTokenException: expired (request id none)",
         "ExpiredTokenException", false, "the session credentials ran out"},
        {AWS_JSON, 500, "", "{}", "RDS CopyDBSnapshot: HTTP 500 (request id none)", "HTTP 500",
         true, ""},
        {AWS_REST_XML, 400, "",
         "<InvalidChangeBatch xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Messages>"
         "<Message>Tried to create</Message></Messages><RequestId>r-4</RequestId></InvalidChangeBatch>",
         "RDS CopyDBSnapshot: InvalidChangeBatch: Tried to create (request id r-4)",
         "InvalidChangeBatch", false, ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        HttpAnswer answer;
        Failure failure;
        Err err = ERR_INIT;

        http_answer_init(&answer, 65536);
        answer.status = cases[i].status;
        buf_puts(&answer.head, cases[i].head);
        buf_puts(&answer.body, cases[i].body);
        failure_read(cases[i].protocol, &answer, &failure);
        failure_fill(&failure, &aws_service_rds, "CopyDBSnapshot", 1, &err);
        assert_string_equal(err.text, cases[i].text);
        assert_string_equal(err.code, cases[i].code);
        assert_int_equal(err.transient, cases[i].transient);
        assert_int_equal(strncmp(err.hint, cases[i].hint, strlen(cases[i].hint)), 0);
        assert_int_equal(err.kind, ERR_AWS);
        http_answer_fini(&answer);
    }
}

static void test_code_is(void **state)
{
    Err err = ERR_INIT;

    (void)state;
    err_fail(&err, ERR_AWS, "x");
    assert_false(aws_code_is(&err, "A B"));
    err_code(&err, "B");
    assert_true(aws_code_is(&err, "A B"));
    assert_true(aws_code_is(&err, "B C"));
    assert_false(aws_code_is(&err, "BB AB"));
    err_fail(&err, ERR_SYSTEM, "x");
    err_code(&err, "B");
    assert_false(aws_code_is(&err, "B"));
}

static void test_headers(void **state)
{
    HttpAnswer answer;
    Span found;

    (void)state;
    http_answer_init(&answer, 16);
    buf_puts(
        &answer.head,
        "HTTP/1.1 200 OK\r\nDate:  Tue, 24 Nov 2026 12:00:00 GMT \r\nX-A: 1\r\nRetry-After: 3\r\n\r\n");
    found = http_header(&answer, "date");
    assert_true(span_is(found, "Tue, 24 Nov 2026 12:00:00 GMT"));
    assert_null(http_header(&answer, "X").at);
    assert_int_equal(failure_retry_after_ms(&answer), 3000);
    buf_puts(&answer.head, "x-amz-retry-after: 70\r\n");
    assert_int_equal(failure_retry_after_ms(&answer), 70);
    http_answer_fini(&answer);
}

/* Carrying settings over --------------------------------------------------------------------- */

static void test_restore_storage(void **state)
{
    static const struct {
        const char *type, *engine;
        int64_t size;
        bool iops, throughput;
        const char *restored;
    } cases[] = {
        {"gp3", "postgres", 100, false, false, "gp3"},
        {"gp3", "postgres", 400, true, true, "gp3"},
        {"gp3", "oracle-ee", 200, true, true, "gp3"},
        {"gp3", "sqlserver-ee", 20, true, true, "gp3"},
        {"gp2", "postgres", 4000, false, false, "gp2"},
        {"io1", "postgres", 100, true, false, "io1"},
        {"io2", "mysql", 100, true, false, "io2"},
        {"standard", "mysql", 100, false, false, "gp3"},
    };
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        RdsInstance from = {.storage_type = cases[i].type,
                            .engine = cases[i].engine,
                            .iops = aws_num(3000),
                            .storage_throughput = aws_num(125),
                            .allocated_storage = aws_num(cases[i].size)};
        RdsRestore restore;

        rds_restore_as(&from, "new", "snap", &arena, &restore);
        assert_int_equal(restore.iops.set, cases[i].iops);
        assert_int_equal(restore.storage_throughput.set, cases[i].throughput);
        assert_string_equal(restore.storage_type, cases[i].restored);
    }
    arena_fini(&arena);
}

static void test_modify_as(void **state)
{
    RdsGroupStatus old_groups[] = {{"sg-1", "active"}, {"sg-2", "active"}};
    const char *logs[] = {"postgresql"};
    RdsInstance from = {.name = "src",
                        .monitoring_interval = aws_num(60),
                        .monitoring_role = "role",
                        .max_allocated_storage = aws_num(500),
                        .backup_retention = aws_num(0),
                        .maintenance_window = "sun:01:00-sun:02:00",
                        .performance_insights = AWS_TRUE,
                        .performance_kms_key = "key",
                        .performance_retention = aws_num(7),
                        .multi_az = AWS_FALSE,
                        .security_groups = {old_groups, 2},
                        .log_exports = {logs, 1},
                        .port = 5432};
    RdsInstance made = from;
    RdsModify modify;
    Arena arena;

    (void)state;
    arena_init(&arena, 1024);
    made.name = "dst";
    assert_false(rds_modify_as(&from, &made, &arena, &modify));
    made.monitoring_interval = aws_num(0);
    made.max_allocated_storage.set = false;
    made.backup_retention = aws_num(1);
    made.maintenance_window = "mon:01:00-mon:02:00";
    made.performance_insights = AWS_FALSE;
    made.performance_retention.set = false;
    made.security_groups.count = 1;
    made.log_exports.count = 0;
    made.multi_az = AWS_UNSET;
    assert_true(rds_modify_as(&from, &made, &arena, &modify));
    assert_string_equal(modify.name, "dst");
    assert_int_equal(modify.monitoring_interval.value, 60);
    assert_string_equal(modify.monitoring_role, "role");
    assert_int_equal(modify.max_allocated_storage.value, 500);
    assert_true(modify.backup_retention.set && modify.backup_retention.value == 0);
    assert_string_equal(modify.maintenance_window, "sun:01:00-sun:02:00");
    assert_int_equal(modify.performance_insights, AWS_TRUE);
    assert_string_equal(modify.performance_kms_key, "key");
    assert_int_equal(modify.performance_retention.value, 7);
    assert_int_equal(modify.security_groups.count, 2);
    assert_int_equal(modify.enable_logs.count, 1);
    assert_int_equal(modify.disable_logs.count, 0);
    assert_int_equal(modify.multi_az, AWS_UNSET);
    assert_false(modify.port.set);
    arena_fini(&arena);
}

static void test_states(void **state)
{
    (void)state;
    assert_true(rds_status_is_usable("available"));
    assert_true(rds_status_is_usable("storage-optimization"));
    assert_true(rds_status_is_usable("backing-up"));
    assert_false(rds_status_is_usable("modifying"));
    assert_false(rds_status_is_usable(NULL));
    assert_true(rds_status_is_failed("incompatible-restore"));
    assert_false(rds_status_is_failed("creating"));
    assert_false(rds_status_is_failed(NULL));
}

static void test_key_check(void **state)
{
    KmsKey key = {.arn = "arn:k",
                  .state = "Enabled",
                  .spec = "SYMMETRIC_DEFAULT",
                  .usage = "ENCRYPT_DECRYPT"};
    Err err = ERR_INIT;

    (void)state;
    assert_true(kms_check_key(&key, &err));
    key.state = "PendingDeletion";
    assert_false(kms_check_key(&key, &err));
    assert_string_equal(err.text, "key arn:k can't be used: it is PendingDeletion");
    key.state = "Enabled";
    key.spec = "RSA_2048";
    assert_false(kms_check_key(&key, &err));
    assert_string_equal(err.text,
                        "key arn:k can't encrypt a database: spec RSA_2048, usage ENCRYPT_DECRYPT");
}

/* Programs ----------------------------------------------------------------------------------- */

static void test_process(void **state)
{
    static const struct {
        const char *command;
        const char *output; /* NULL: fails */
        const char *error;
    } cases[] = {
        {"printf %s|%s 'a b' c\\ d", "a b|c d", NULL},
        {"printf \"%s\" \"x\\\"y\"", "x\"y", NULL},
        {"printf %s ''", "", NULL},
        {"printf %s $HOME", "$HOME", NULL},
        {"", NULL, "credential_process is empty"},
        {"printf 'x", NULL, "credential_process has a quote that isn't closed"},
        {"false", NULL, "the credential_process false failed with status 1"},
        {"/nonexistent/x", NULL,
         "starting the credential_process /nonexistent/x: No such file or directory"},
        {"yes", NULL, "the credential_process prints more than 65536 bytes"},
        {"sleep 60", NULL, "the credential_process didn't end in time"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Err err = ERR_INIT;
        Buf out;
        bool ok;

        buf_init(&out, 65536);
        ok = process_read(cases[i].command, 300, NULL, &out, &err);
        assert_int_equal(ok, cases[i].output != NULL);
        assert_string_equal(ok ? buf_str(&out) : err.text, ok ? cases[i].output : cases[i].error);
        buf_fini(&out);
    }
}

/* Opening ------------------------------------------------------------------------------------ */

static void test_open(void **state)
{
    AwsOptions options = {.run = "r"};
    AwsTag tag = {AWS_RUN_TAG, "r"};
    Err err = ERR_INIT;
    const char *region;
    Files files;
    Profiles *p = load(&files, "[default]\nregion = eu-north-1\nmax_attempts = 3\n", "", &err);
    Aws *aws = aws_open(&options, &err);
    Aws *other = aws_again(aws, &err);

    (void)state;
    assert_non_null(aws);
    assert_non_null(other);
    assert_true(aws_region(other, &region, &err));
    assert_string_equal(region, "eu-north-1");
    assert_true(aws_is_ours(other, (AwsTags){&tag, 1}));
    tag.value = "another";
    assert_false(aws_is_ours(aws, (AwsTags){&tag, 1}));
    assert_false(aws_is_ours(aws, (AwsTags){NULL, 0}));
    aws_free(aws);
    aws_free(other);
    setenv("AWS_MAX_ATTEMPTS", "many", 1);
    assert_null(aws_open(&options, &err));
    assert_string_equal(
        err.text, "AWS: AWS_MAX_ATTEMPTS or max_attempts is \"many\", not a number from 1 to 100");
    drop(&files, p);
    clear_environment();
    aws = aws_open(&options, &err);
    assert_false(aws_region(aws, &region, &err));
    assert_string_equal(err.text, "AWS: no region is set");
    aws_free(aws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_profiles),
        cmocka_unit_test(test_profile_errors),
        cmocka_unit_test(test_own_endpoints),
        cmocka_unit_test(test_endpoint_order),
        cmocka_unit_test(test_endpoint_errors),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_code_is),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_restore_storage),
        cmocka_unit_test(test_modify_as),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_key_check),
        cmocka_unit_test(test_process),
        cmocka_unit_test(test_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
