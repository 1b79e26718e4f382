/* The signer against AWS's published vectors, against botocore's own, and its canonical forms by
 * hand. */
#include "tests/unit/kit.h"

#include <dirent.h>
#include <unistd.h>

#include "aws/assume.h"
#include "aws/hash.h"
#include "aws/json.h"
#include "aws/sigv4.h"

#define VECTORS "../shared/data/sigv4"

typedef struct Vector {
    Arena arena;
    const char *folder;
    json_t *context;
    SigInput in;
    HttpHeader headers[32];
    AwsKeys keys;
} Vector;

static char *own(const char *text)
{
    return text ? strdup(text) : NULL;
}

static const char *read_file(Vector *v, const char *name)
{
    char path[512];
    FILE *file;
    char *text = arena_zalloc(&v->arena, 65536);

    snprintf(path, sizeof(path), "%s/%s", v->folder, name);
    file = fopen(path, "r");
    if (!file)
        fail_msg("%s can't be opened", path);
    text[fread(text, 1, 65535, file)] = '\0';
    fclose(file);
    return text;
}

static void add_header(Vector *v, const char *name, const char *value)
{
    v->headers[v->in.header_count++] = (HttpHeader){name, value};
}

/* "Name:value" lines up to an empty one; a line that begins with a blank belongs to the one above.
 */
static void read_headers(Vector *v, char *at)
{
    while (*at && *at != '\n') {
        char *colon = strchr(at, ':');
        char *end = strchr(at, '\n');

        while (end && (end[1] == ' ' || end[1] == '\t'))
            end = strchr(end + 1, '\n');
        *colon = '\0';
        if (end)
            *end = '\0';
        add_header(v, at, colon + 1);
        at = end ? end + 1 : colon + 1 + strlen(colon + 1);
    }
    v->in.body = *at == '\n' ? span_str(at + 1) : span_str("");
}

static void read_request(Vector *v)
{
    char *text = arena_strdup(&v->arena, read_file(v, "request.txt"));
    char *end = strchr(text, '\n');
    char *target = strchr(text, ' ') + 1;
    char *query;

    *end = '\0';
    target[-1] = '\0';
    assert_true(strlen(target) > 9 && strcmp(target + strlen(target) - 9, " HTTP/1.1") == 0);
    target[strlen(target) - 9] = '\0';
    v->in.method = text;
    query = strchr(target, '?');
    if (query)
        *query++ = '\0';
    v->in.path = span_str(target);
    v->in.query = span_str(query ? query : "");
    read_headers(v, end + 1);
}

static bool read_flag(const Vector *v, const char *name)
{
    return json_is_true(json_object_get(v->context, name));
}

static void vector_open(Vector *v, const char *folder)
{
    json_error_t why;
    const json_t *keys;

    memset(v, 0, sizeof(*v));
    arena_init(&v->arena, 65536);
    v->folder = folder;
    v->context = json_loads(read_file(v, "context.json"), 0, &why);
    assert_non_null(v->context);
    keys = json_object_get(v->context, "credentials");
    v->keys.id = own(json_string_value(json_object_get(keys, "access_key_id")));
    v->keys.secret = own(json_string_value(json_object_get(keys, "secret_access_key")));
    if (!read_flag(v, "omit_session_token"))
        v->keys.token = own(json_string_value(json_object_get(keys, "token")));
    v->in.region = json_string_value(json_object_get(v->context, "region"));
    v->in.service = json_string_value(json_object_get(v->context, "service"));
    v->in.when = aws_time(json_string_value(json_object_get(v->context, "timestamp")));
    v->in.keep_path = !read_flag(v, "normalize");
    v->in.headers = v->headers;
    read_request(v);
}

static void vector_close(Vector *v)
{
    aws_keys_wipe(&v->keys);
    json_decref(v->context);
    arena_fini(&v->arena);
}

static void compare(Vector *v, const SigOutput *out, const char *way)
{
    char name[64];

    snprintf(name, sizeof(name), "%s-canonical-request.txt", way);
    assert_string_equal(arena_str_of(&v->arena, out->canonical), read_file(v, name));
    snprintf(name, sizeof(name), "%s-string-to-sign.txt", way);
    assert_string_equal(out->to_sign, read_file(v, name));
    snprintf(name, sizeof(name), "%s-signature.txt", way);
    assert_string_equal(out->signature, read_file(v, name));
}

static void check_header(const char *folder)
{
    char date[SIGV4_DATE];
    char hex[HASH_HEX];
    uint8_t hash[HASH_BYTES];
    Err err = ERR_INIT;
    SigOutput out;
    Vector v;

    vector_open(&v, folder);
    add_header(&v, "X-Amz-Date", sigv4_date(v.in.when, date));
    if (v.keys.token)
        add_header(&v, "X-Amz-Security-Token", v.keys.token);
    if (read_flag(&v, "sign_body")) {
        assert_true(hash_sha256(v.in.body, hash));
        hash_hex(hash, hex);
        add_header(&v, "x-amz-content-sha256", hex);
    }
    assert_true(sigv4_sign(&v.in, &v.keys, &v.arena, &out, &err));
    compare(&v, &out, "header");
    assert_non_null(strstr(read_file(&v, "header-signed-request.txt"), out.authorization));
    vector_close(&v);
}

static void check_query(const char *folder)
{
    Err err = ERR_INIT;
    SigOutput out;
    Vector v;
    unsigned seconds;

    vector_open(&v, folder);
    seconds = (unsigned)json_integer_value(json_object_get(v.context, "expiration_in_seconds"));
    assert_true(sigv4_presign(&v.in, &v.keys, seconds, &v.arena, &out, &err));
    compare(&v, &out, "query");
    assert_non_null(strstr(out.query, out.signature));
    vector_close(&v);
}

static void test_published_vectors(void **state)
{
    DIR *dir = opendir(VECTORS);
    const struct dirent *entry;
    unsigned count = 0;
    char path[512];

    (void)state;
    if (!dir)
        skip();
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), VECTORS "/%s", entry->d_name);
        check_header(path);
        check_query(path);
        count++;
    }
    closedir(dir);
    print_message("# %u published vectors, by header and by query\n", count);
    assert_true(count >= 30);
}

/* botocore ------------------------------------------------------------------------------------ */

static const char *get(const json_t *one, const char *name)
{
    return json_string_value(json_object_get(one, name));
}

static size_t take_headers(const json_t *one, HttpHeader *headers)
{
    const json_t *list = json_object_get(one, "headers");
    const json_t *pair;
    size_t i;

    json_array_foreach(list, i, pair)
    {
        headers[i].name = json_string_value(json_array_get(pair, 0));
        headers[i].value = json_string_value(json_array_get(pair, 1));
    }
    return json_array_size(list);
}

static void check_case(const json_t *one)
{
    HttpHeader headers[16];
    AwsKeys keys = {.id = own(get(one, "id")),
                    .secret = own(get(one, "secret")),
                    .token = own(get(one, "token"))};
    bool presign = json_is_true(json_object_get(one, "presign"));
    char date[SIGV4_DATE];
    Err err = ERR_INIT;
    SigOutput out;
    Arena arena;
    SigInput in = {.method = get(one, "method"),
                   .path = span_str(get(one, "path")),
                   .query = span_str(get(one, "query")),
                   .headers = headers,
                   .header_count = take_headers(one, headers),
                   .body = span_str(get(one, "body")),
                   .region = get(one, "region"),
                   .service = get(one, "service"),
                   .when = (uint64_t)json_integer_value(json_object_get(one, "when"))};

    arena_init(&arena, 4096);
    headers[in.header_count++] = (HttpHeader){"host", get(one, "host")};
    if (!presign) {
        headers[in.header_count++] = (HttpHeader){"X-Amz-Date", sigv4_date(in.when, date)};
        if (keys.token)
            headers[in.header_count++] = (HttpHeader){"X-Amz-Security-Token", keys.token};
        assert_true(sigv4_sign(&in, &keys, &arena, &out, &err));
    } else {
        assert_true(sigv4_presign(&in, &keys,
                                  (unsigned)json_integer_value(json_object_get(one, "expires")),
                                  &arena, &out, &err));
    }
    assert_string_equal(arena_str_of(&arena, out.canonical), get(one, "canonical"));
    assert_string_equal(presign ? out.signature : out.authorization, get(one, "expected"));
    arena_fini(&arena);
    aws_keys_wipe(&keys);
}

static void test_botocore(void **state)
{
    FILE *cases = popen("/usr/bin/python3 tests/unit/sigv4_cases.py 400 20261124", "r");
    static char line[65536];
    unsigned count = 0;

    (void)state;
    assert_non_null(cases);
    while (fgets(line, sizeof(line), cases)) {
        json_error_t why;
        json_t *one = json_loads(line, 0, &why);

        assert_non_null(one);
        check_case(one);
        json_decref(one);
        count++;
    }
    assert_int_equal(pclose(cases), 0);
    print_message("# %u requests signed as botocore signs them\n", count);
    assert_int_equal(count, 400);
}

/* By hand ------------------------------------------------------------------------------------ */

static void test_canonical_paths(void **state)
{
    static const struct {
        const char *path;
        bool keep;
        const char *expected;
    } cases[] = {
        {"", false, "/"},
        {"/", false, "/"},
        {"//", false, "/"},
        {"/a/../b", false, "/b"},
        {"/../..", false, "/"},
        {"/a/./b/", false, "/a/b/"},
        {"/a//b", true, "/a//b"},
        {"/a b", false, "/a%20b"},
        {"/a%20b", false, "/a%2520b"}, /* encoded once more, as for every service but S3 */
        {"/2013-04-01/hostedzone/Z1/rrset", false, "/2013-04-01/hostedzone/Z1/rrset"},
    };
    Arena arena;
    Buf out;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_init(&out, 1024);
        sigv4_canonical_path(&out, span_str(cases[i].path), cases[i].keep, &arena);
        assert_string_equal(buf_str(&out), cases[i].expected);
        buf_fini(&out);
    }
    arena_fini(&arena);
}

static void test_canonical_queries(void **state)
{
    static const struct {
        const char *query;
        const char *expected;
    } cases[] = {
        {"", ""},
        {"b=2&a=1", "a=1&b=2"},
        {"a=2&a=1", "a=1&a=2"},
        {"a-b=1&a=2", "a=2&a-b=1"}, /* by name, not by the whole text: '=' sorts behind '-' */
        {"flag", "flag="},
        {"a=b=c", "a=b%3Dc"},
        {"a=%2f", "a=%2F"},
        {"a=%zz", "a=%25zz"},
        {"a=%", "a=%25"},
        {"&&a=1&", "a=1"},
        {"a=~-_.", "a=~-_."},
    };
    Arena arena;
    Buf out;

    (void)state;
    arena_init(&arena, 1024);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_init(&out, 1024);
        sigv4_canonical_query(&out, span_str(cases[i].query), &arena);
        assert_string_equal(buf_str(&out), cases[i].expected);
        buf_fini(&out);
    }
    arena_fini(&arena);
}

static void test_times(void **state)
{
    char date[SIGV4_DATE];

    (void)state;
    assert_int_equal(aws_time("2015-08-30T12:36:00Z"), 1440938160);
    assert_int_equal(aws_time("2015-08-30T12:36:00.123Z"), 1440938160);
    assert_int_equal(aws_time("2015-08-30T12:36:00+00:00"), 1440938160);
    assert_int_equal(aws_time("2015-08-30T12:36:00+02:00"), 0);
    assert_int_equal(aws_time("yesterday"), 0);
    assert_int_equal(aws_time(NULL), 0);
    assert_string_equal(sigv4_date(1440938160, date), "20150830T123600Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_botocore),
        cmocka_unit_test(test_canonical_paths),
        cmocka_unit_test(test_canonical_queries),
        cmocka_unit_test(test_times),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
