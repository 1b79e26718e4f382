#include "engine/conf/conf.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>

#include "engine/conf/ini.h"

enum {
#define OPTION(field, ...) INDEX_##field,
#include "engine/conf/options.def"
#undef OPTION
    OPTION_COUNT
};

#define NAME_ROOM     64
#define WARNINGS_MOST 16

struct ConfMeta {
    Arena arena;
    ConfOrigin origins[OPTION_COUNT];
    const char *warnings[WARNINGS_MOST + 1];
    size_t warning_count;
};

/* Flag and variable names are made from section and key on first use, so that they can't disagree.
 */
static ConfOption options[OPTION_COUNT] = {
#define OPTION(f, s, k, fl, kd, st, lo, hi, h) \
    {.section = (s),                           \
     .key = (k),                               \
     .flag = (fl),                             \
     .kind = CONF_##kd,                        \
     .standard = (st),                         \
     .least = (lo),                            \
     .most = (hi),                             \
     .help = (h),                              \
     .offset = offsetof(Conf, f)},
#include "engine/conf/options.def"
#undef OPTION
};
static char names[OPTION_COUNT][2][NAME_ROOM];
static pthread_once_t names_made = PTHREAD_ONCE_INIT;

static void make_names(void)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char *env = names[i][1];

        if (!options[i].flag) {
            snprintf(names[i][0], NAME_ROOM, "%s-%s", options[i].section, options[i].key);
            options[i].flag = names[i][0];
        }
        snprintf(env, NAME_ROOM, "KEYBRIDGE_%s", options[i].flag);
        for (char *c = env; *c; c++)
            *c = (char)(*c == '-' ? '_' : (*c >= 'a' && *c <= 'z') ? *c - 'a' + 'A' : *c);
        options[i].env = env;
    }
}

size_t conf_count(void)
{
    return OPTION_COUNT;
}

const ConfOption *conf_option(size_t index)
{
    pthread_once(&names_made, make_names);
    return &options[index];
}

const ConfOption *conf_by_flag(const char *flag)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strcmp(conf_option(i)->flag, flag) == 0)
            return &options[i];
    return NULL;
}

const ConfOption *conf_by_key(const char *section, const char *key)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strcmp(conf_option(i)->section, section) == 0 && strcmp(options[i].key, key) == 0)
            return &options[i];
    return NULL;
}

bool conf_section_exists(const char *section)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strcmp(conf_option(i)->section, section) == 0)
            return true;
    return false;
}

static size_t index_of(const ConfOption *option)
{
    return (size_t)(option - options);
}

static void *place_of(Conf *conf, const ConfOption *option)
{
    return (char *)conf + option->offset;
}

static const void *value_of(const Conf *conf, const ConfOption *option)
{
    return (const char *)conf + option->offset;
}

static bool is_text(ConfKind kind)
{
    return kind == CONF_TEXT || kind == CONF_SECRET || kind == CONF_CHOICE;
}

/* values */

typedef struct Unit {
    const char *name;
    uint64_t factor;
} Unit;

static const Unit size_units[] = {{"TiB", 1ull << 40},
                                  {"GiB", 1ull << 30},
                                  {"MiB", 1ull << 20},
                                  {"KiB", 1ull << 10},
                                  {"B", 1},
                                  {NULL, 0}};
static const Unit ms_units[] = {{"d", 86400000}, {"h", 3600000}, {"min", 60000},
                                {"s", 1000},     {"ms", 1},      {NULL, 0}};
static const Unit no_units[] = {{NULL, 0}};

static const struct {
    const char *name;
    const char *what; /* for messages */
    const Unit *units;
} kinds[] = {
    [CONF_TEXT] = {"text", "", no_units},
    [CONF_SECRET] = {"secret", "", no_units},
    [CONF_CHOICE] = {"choice", "", no_units},
    [CONF_COUNT] = {"count", "a whole number", no_units},
    [CONF_SIZE] = {"size", "a size such as 512KiB, 16MiB or 1GiB", size_units},
    [CONF_MS] = {"time", "a time such as 300ms, 10s, 5min or 1h", ms_units},
    [CONF_BOOL] = {"yes or no", "yes or no", no_units},
};

const char *conf_kind_name(ConfKind kind)
{
    return kinds[kind].name;
}

static void put_unit(Buf *out, uint64_t value, const Unit *unit)
{
    while (unit->factor > 1 && (value == 0 || value % unit->factor != 0))
        unit++;
    buf_printf(out, "%" PRIu64 "%s", value / unit->factor, unit->name);
}

void conf_put_size(Buf *out, uint64_t bytes)
{
    put_unit(out, bytes, size_units);
}

void conf_put_ms(Buf *out, uint64_t ms)
{
    put_unit(out, ms, ms_units);
}

/* Digits and a unit. A time without one is refused: nobody agrees on what it would be. */
static bool parse_number(const char *text, ConfKind kind, uint64_t *value)
{
    uint64_t number = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(number, (uint64_t)10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
            return false;
    if (at == text)
        return false;
    if (*at == '\0' && (kind != CONF_MS || number == 0)) {
        *value = number;
        return true;
    }
    while (*at == ' ')
        at++;
    for (const Unit *unit = kinds[kind].units; unit->name; unit++)
        if (strcmp(at, unit->name) == 0)
            return !__builtin_mul_overflow(number, unit->factor, value);
    return false;
}

static bool parse_bool(const char *text, bool *value)
{
    static const struct {
        const char *name;
        bool value;
    } words[] = {{"yes", true}, {"on", true},   {"true", true},   {"1", true},
                 {"no", false}, {"off", false}, {"false", false}, {"0", false}};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcasecmp(text, words[i].name) == 0) {
            *value = words[i].value;
            return true;
        }
    return false;
}

/* The help of a CHOICE starts with its list: "a|b|c. What it is." */
static bool is_choice(const ConfOption *option, const char *text)
{
    size_t len = strlen(text);

    for (const char *at = option->help;; at++) {
        size_t word = strcspn(at, "|.");

        if (word == len && memcmp(at, text, len) == 0)
            return true;
        at += word;
        if (*at != '|')
            return false;
    }
}

static void put_limit(Buf *out, const ConfOption *option, uint64_t limit)
{
    if (option->kind == CONF_SIZE)
        conf_put_size(out, limit);
    else if (option->kind == CONF_MS)
        conf_put_ms(out, limit);
    else
        buf_printf(out, "%" PRIu64, limit);
}

static bool check_range(const ConfOption *option, const char *text, uint64_t value, Err *err)
{
    bool low = value < option->least;
    AUTO_BUF limit;

    buf_init(&limit, 64);
    if (!low && (option->most == 0 || value <= option->most))
        return true;
    put_limit(&limit, option, low ? option->least : option->most);
    return err_fail(err, ERR_CONFIG, "%s is %s than %s", text, low ? "less" : "more",
                    buf_str(&limit));
}

static bool set_value(Conf *conf, const ConfOption *option, const char *text, Err *err)
{
    void *place = place_of(conf, option);
    uint64_t number;

    if (option->kind == CONF_CHOICE && !is_choice(option, text))
        return err_fail(err, ERR_CONFIG, "\"%s\" isn't one of %.*s", text,
                        (int)strcspn(option->help, "."), option->help);
    switch (option->kind) {
    case CONF_CHOICE:
    case CONF_TEXT:
    case CONF_SECRET:
        *(const char **)place = *text ? arena_strdup(&conf->meta->arena, text) : NULL;
        return true;
    case CONF_BOOL:
        return parse_bool(text, place) || err_fail(err, ERR_CONFIG, "\"%s\" isn't yes or no", text);
    case CONF_COUNT:
    case CONF_SIZE:
    case CONF_MS:
    default:
        if (!parse_number(text, option->kind, &number))
            return err_fail(err, ERR_CONFIG, "\"%s\" isn't %s", text, kinds[option->kind].what);
        *(uint64_t *)place = number;
        return check_range(option, text, number, err);
    }
}

static bool name_origin(const ConfOption *option, ConfOrigin origin, Err *err)
{
    switch (origin.from) {
    case CONF_FROM_FLAG:
        err->kind = ERR_USAGE;
        return err_context(err, "--%s", option->flag);
    case CONF_FROM_ENV:
        return err_context(err, "%s", option->env);
    case CONF_FROM_FILE:
        return err_context(err, "%s:%u: [%s] %s", origin.file, origin.line, option->section,
                           option->key);
    case CONF_FROM_DEFAULT:
    default:
        err->kind = ERR_BUG;
        return err_context(err, "default of %s", option->flag);
    }
}

bool conf_set(Conf *conf, const ConfOption *option, const char *value, ConfOrigin origin, Err *err)
{
    if (!set_value(conf, option, value, err))
        return name_origin(option, origin, err);
    conf->meta->origins[index_of(option)] = origin;
    return true;
}

void conf_init(Conf *conf)
{
    Arena arena;
    Err err = ERR_INIT;

    memset(conf, 0, sizeof(*conf));
    arena_init(&arena, 4096);
    conf->meta = arena_new(&arena, ConfMeta);
    conf->meta->arena =
        arena; /* which now owns the very struct it lies in: conf_fini copies it out first */
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const ConfOption *option = conf_option(i);

        if (option->standard && !conf_set(conf, option, option->standard, (ConfOrigin){0}, &err)) {
            fprintf(stderr, "keybridge: options.def: %s\n", err.text);
            abort();
        }
    }
}

void conf_fini(Conf *conf)
{
    Arena arena;

    if (!conf->meta)
        return;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char **text = place_of(conf, &options[i]);

        if (options[i].kind == CONF_SECRET && *text)
            explicit_bzero(*text, strlen(*text));
    }
    arena = conf->meta->arena;
    arena_fini(&arena);
    memset(conf, 0, sizeof(*conf));
}

PRINTF_LIKE(2, 3) static void warn(Conf *conf, const char *fmt, ...)
{
    ConfMeta *meta = conf->meta;
    char text[512];
    va_list args;

    if (meta->warning_count == WARNINGS_MOST)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    meta->warnings[meta->warning_count++] = arena_strdup(&meta->arena, text);
}

const char *conf_warning(const Conf *conf, size_t index)
{
    return index <= WARNINGS_MOST ? conf->meta->warnings[index] : NULL;
}

ConfOrigin conf_origin(const Conf *conf, const ConfOption *option)
{
    return conf->meta ? conf->meta->origins[index_of(option)] : (ConfOrigin){0};
}

/* the environment */

static const char *nearest_option(const char *name, bool env)
{
    const char *all[OPTION_COUNT];

    for (size_t i = 0; i < OPTION_COUNT; i++)
        all[i] = env ? conf_option(i)->env : conf_option(i)->flag;
    return conf_nearest(name, all, OPTION_COUNT);
}

/* A warning and not an error: Kubernetes, for one, sets KEYBRIDGE_PORT when a service is called
 * keybridge. */
static void warn_unknown(Conf *conf, const char *name, size_t len)
{
    char text[128];
    const char *near;

    if (len >= sizeof(text))
        return;
    snprintf(text, sizeof(text), "%.*s", (int)len, name);
    near = nearest_option(text, true);
    warn(conf, "environment variable %s isn't an option%s%s%s", text, near ? "; did you mean " : "",
         near ? near : "", near ? "?" : "");
}

static const ConfOption *by_env(const char *entry, size_t len)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strlen(conf_option(i)->env) == len && memcmp(options[i].env, entry, len) == 0)
            return &options[i];
    return NULL;
}

/* Set for or by others: the ini file's name (main reads it) and what a switch command is given. */
static bool is_other_variable(const char *entry, size_t len)
{
    static const char *const others[] = {"KEYBRIDGE_CONFIG", "KEYBRIDGE_OLD_HOST",
                                         "KEYBRIDGE_OLD_PORT", "KEYBRIDGE_NEW_PORT",
                                         "KEYBRIDGE_NEW_HOST"};

    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (strlen(others[i]) == len && memcmp(others[i], entry, len) == 0)
            return true;
    return false;
}

bool conf_read_env(Conf *conf, char *const *env, Err *err)
{
    for (; *env; env++) {
        const char *equals = strchr(*env, '=');
        size_t len = equals ? (size_t)(equals - *env) : 0;
        const ConfOption *option;

        if (!equals || strncmp(*env, "KEYBRIDGE_", 10) != 0 || is_other_variable(*env, len))
            continue;
        option = by_env(*env, len);
        if (!option)
            warn_unknown(conf, *env, len);
        else if (!conf_set(conf, option, equals + 1, (ConfOrigin){.from = CONF_FROM_ENV}, err))
            return false;
    }
    return true;
}

/* the file */

typedef struct FileRead {
    Conf *conf;
    const char *path;
    bool has_secret;
} FileRead;

/* A connection string without a password is nothing to hide. */
static bool holds_password(const ConfOption *option, const char *value)
{
    const char *user = strstr(value, "://");
    const char *at = user ? strchr(user, '@') : NULL;

    if (option->kind != CONF_SECRET || *value == '\0')
        return false;
    if (strcmp(option->key, "dsn") != 0 || strstr(value, "password"))
        return true;
    return at && memchr(user + 3, ':', (size_t)(at - user - 3));
}

static bool unknown_key(const FileRead *file, const IniEntry *entry, Err *err)
{
    const char *all[OPTION_COUNT];
    size_t count = 0;
    const char *near;

    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strcmp(conf_option(i)->section, entry->section) == 0)
            all[count++] = options[i].key;
    err_fail(err, ERR_CONFIG, "%s:%u: unknown key %s in [%s]", file->path, entry->line, entry->key,
             entry->section);
    near = conf_nearest(entry->key, all, count);
    return near ? err_hint(err, "did you mean %s?", near)
                : err_hint(err, "keybridge config ini prints a file with every key");
}

static bool on_entry(void *self, const IniEntry *entry, Err *err)
{
    FileRead *file = self;
    const ConfOption *option = conf_by_key(entry->section, entry->key);
    ConfOrigin before;

    if (!option && !conf_section_exists(entry->section))
        return err_fail(err, ERR_CONFIG, "%s:%u: unknown section [%s]", file->path, entry->line,
                        entry->section) ||
               err_hint(err, "keybridge config ini prints a file with every section and key");
    if (!option)
        return unknown_key(file, entry, err);
    before = conf_origin(file->conf, option);
    if (before.from == CONF_FROM_FILE)
        return err_fail(err, ERR_CONFIG, "%s:%u: [%s] %s was given already in line %u", file->path,
                        entry->line, entry->section, entry->key, before.line);
    file->has_secret = file->has_secret || holds_password(option, entry->value);
    return conf_set(file->conf, option, entry->value,
                    (ConfOrigin){.from = CONF_FROM_FILE, .file = file->path, .line = entry->line},
                    err);
}

static void close_file(FILE **in)
{
    if (*in)
        fclose(*in);
}

bool conf_read_file(Conf *conf, const char *path, Err *err)
{
    ON_EXIT(close_file) FILE *in = fopen(path, "re");
    FileRead file = {.conf = conf};
    struct stat facts;

    if (!in || fstat(fileno(in), &facts) != 0)
        return err_errno(err, ERR_CONFIG, "reading the configuration file %s", path);
    if (S_ISDIR(facts.st_mode))
        return err_fail(err, ERR_CONFIG, "reading the configuration file %s: it is a directory",
                        path);
    file.path = arena_strdup(&conf->meta->arena, path);
    if (!ini_read(in, file.path, on_entry, &file, err))
        return false;
    if (file.has_secret && (facts.st_mode & S_IROTH)) {
        err_fail(err, ERR_CONFIG, "%s holds a password and everybody on this machine can read it",
                 path);
        return err_hint(err, "chmod 600 %s", path);
    }
    return true;
}

/* what is shown */

void conf_put_value(Buf *out, const Conf *conf, const ConfOption *option)
{
    const void *value = value_of(conf, option);
    const char *text = is_text(option->kind) ? *(const char *const *)value : NULL;

    if (option->kind == CONF_SECRET)
        buf_puts(out, text ? "(secret)" : "");
    else if (is_text(option->kind))
        buf_puts(out, text ? text : "");
    else if (option->kind == CONF_BOOL)
        buf_puts(out, *(const bool *)value ? "yes" : "no");
    else
        put_limit(out, option, *(const uint64_t *)value);
}

#define WORD_MOST 64

/* Edit distance with swapped neighbours counted once: what fingers do. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MOST + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > WORD_MOST || b_len > WORD_MOST)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t *now = rows[i % 3];
        const size_t *last = rows[(i + 2) % 3];
        const size_t *older = rows[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            now[j] = size_min(size_min(last[j] + 1, now[j - 1] + 1),
                              last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = size_min(now[j], older[j - 2] + 1);
        }
    }
    return rows[a_len % 3][b_len];
}

const char *conf_nearest(const char *name, const char *const *all, size_t count)
{
    const char *best = NULL;
    size_t least = size_min(3, strlen(name) / 3) + 1;

    for (size_t i = 0; i < count; i++) {
        size_t far = distance(name, all[i]);

        if (far < least) {
            least = far;
            best = all[i];
        }
    }
    return best;
}
