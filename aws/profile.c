/* The format, as the AWS command line reads it: [default], [profile x] and [services x] in config,
 * [x] in credentials; "key = value"; a line that starts with a blank continues the key above it,
 * and is "sub = value" when that key had no value. Comments are whole lines. */
#include "aws/profile.h"

#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <unistd.h>

#include "engine/base/arena.h"

#define MOST_LINE 65536
#define MOST_FILE MIB(4)

typedef struct Setting {
    struct Setting *next;
    ProfileFile file;
    const char *kind;
    const char *name;
    const char *key;
    const char *value;
} Setting;

typedef struct Section {
    struct Section *next;
    const char *kind;
    const char *name;
} Section;

struct Profiles {
    Arena arena;
    Setting *settings; /* the newest first, so that a repeated key has its last value */
    Section *sections;
    const char *paths[2];
};

typedef struct Parse {
    Profiles *into;
    ProfileFile file;
    const char *path;
    unsigned line;
    const char *kind; /* NULL: a section that is none of ours, or none yet */
    const char *name;
    const char *parent; /* the key that an indented line belongs to */
    bool nests;         /* it had no value */
    bool before_first;
} Parse;

static char *strip(char *text)
{
    size_t len;

    while (isspace((unsigned char)*text))
        text++;
    len = strlen(text);
    while (len && isspace((unsigned char)text[len - 1]))
        text[--len] = '\0';
    return text;
}

/* Names with blanks are quoted: [profile "two words"] */
static char *unquote(char *text)
{
    size_t len = strlen(text);

    if (len < 2 || (text[0] != '"' && text[0] != '\'') || text[len - 1] != text[0])
        return text;
    text[len - 1] = '\0';
    return text + 1;
}

static void enter_section(Parse *parse, const char *kind, const char *name)
{
    Section *section = arena_new(&parse->into->arena, Section);

    parse->kind = section->kind = kind;
    parse->name = section->name = arena_strdup(&parse->into->arena, name);
    section->next = parse->into->sections;
    parse->into->sections = section;
}

static bool on_section(Parse *parse, char *line, Err *err)
{
    static const char *const kinds[] = {"profile", "services", "sso-session"};
    char *close = strrchr(line, ']');
    char *title;

    if (!close)
        return err_fail(err, ERR_CONFIG, "%s:%u: a section without its \"]\"", parse->path,
                        parse->line);
    *close = '\0';
    title = strip(line + 1);
    parse->kind = NULL;
    parse->parent = NULL;
    parse->before_first = false;
    if (parse->file == PROFILE_CREDENTIALS || strcmp(title, "default") == 0) {
        enter_section(parse, "profile", unquote(title));
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t len = strlen(kinds[i]);

        if (strncmp(title, kinds[i], len) == 0 && isspace((unsigned char)title[len]))
            enter_section(parse, kinds[i], unquote(strip(title + len)));
    }
    return true;
}

static void add_setting(Parse *parse, const char *key, const char *value)
{
    Arena *arena = &parse->into->arena;
    Setting *setting = arena_new(arena, Setting);
    char *lower = arena_strdup(arena, key);

    for (char *c = lower; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    *setting = (Setting){.next = parse->into->settings,
                         .file = parse->file,
                         .kind = parse->kind,
                         .name = parse->name,
                         .key = lower,
                         .value = arena_strdup(arena, value)};
    parse->into->settings = setting;
}

static bool on_setting(Parse *parse, char *line, bool indented, Err *err)
{
    char *equal = strchr(line, '=');
    char *key;
    char *value;

    if (parse->before_first)
        return err_fail(err, ERR_CONFIG, "%s:%u: a setting before the first section", parse->path,
                        parse->line);
    if (indented && parse->parent && !parse->nests)
        return true; /* more of a value that spans lines; none that we read does */
    if (!equal)
        return err_fail(err, ERR_CONFIG, "%s:%u: neither a section nor \"key = value\"",
                        parse->path, parse->line);
    *equal = '\0';
    key = strip(line);
    value = strip(equal + 1);
    if (!indented) {
        parse->parent = arena_strdup(&parse->into->arena, key);
        parse->nests = *value == '\0';
    }
    if (!parse->kind)
        return true;
    if (indented && parse->parent)
        key = arena_printf(&parse->into->arena, "%s.%s", parse->parent, key);
    add_setting(parse, key, value);
    return true;
}

static bool on_line(Parse *parse, char *line, Err *err)
{
    bool indented = isspace((unsigned char)line[0]) != 0;
    char *text = strip(line);

    if (*text == '\0' || *text == '#' || *text == ';')
        return true;
    if (*text == '[' && !indented)
        return on_section(parse, text, err);
    return on_setting(parse, text, indented, err);
}

static bool read_lines(Parse *parse, FILE *file, Err *err)
{
    char *line = malloc(MOST_LINE);
    size_t total = 0;
    bool ok = true;

    if (!line)
        abort();
    while (ok && fgets(line, MOST_LINE, file)) {
        size_t len = strlen(line);

        parse->line++;
        total += len;
        if (total > MOST_FILE || (len == MOST_LINE - 1 && line[len - 1] != '\n'))
            ok = err_fail(err, ERR_CONFIG, "%s:%u: too long for an AWS settings file", parse->path,
                          parse->line);
        else
            ok = on_line(parse, line, err);
    }
    if (ok && ferror(file))
        ok = err_errno(err, ERR_CONFIG, "reading %s", parse->path);
    explicit_bzero(line, MOST_LINE);
    free(line);
    return ok;
}

static bool load_file(Profiles *profiles, ProfileFile which, Err *err)
{
    Parse parse = {
        .into = profiles, .file = which, .path = profiles->paths[which], .before_first = true};
    FILE *file = fopen(parse.path, "re");
    bool ok;

    if (!file && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
        return errno != EACCES || err_errno(err, ERR_CONFIG, "reading %s", parse.path);
    if (!file)
        return err_errno(err, ERR_CONFIG, "reading %s", parse.path);
    ok = read_lines(&parse, file, err);
    fclose(file);
    return ok;
}

static const char *home_folder(Arena *arena)
{
    const char *home = getenv("HOME");
    struct passwd *found = NULL;
    struct passwd entry;
    char space[4096];

    if (home && *home)
        return home;
    if (getpwuid_r(getuid(), &entry, space, sizeof(space), &found) == 0 && found)
        return arena_strdup(arena, entry.pw_dir);
    return "/";
}

static const char *file_path(Arena *arena, const char *variable, const char *standard)
{
    const char *given = getenv(variable);

    if (!given || !*given)
        return arena_printf(arena, "%s/.aws/%s", home_folder(arena), standard);
    if (given[0] == '~' && given[1] == '/')
        return arena_printf(arena, "%s%s", home_folder(arena), given + 1);
    return arena_strdup(arena, given);
}

Profiles *profiles_load(Err *err)
{
    Profiles *profiles = calloc(1, sizeof(*profiles));

    if (!profiles)
        abort();
    arena_init(&profiles->arena, 4096);
    profiles->paths[PROFILE_CONFIG] = file_path(&profiles->arena, "AWS_CONFIG_FILE", "config");
    profiles->paths[PROFILE_CREDENTIALS] =
        file_path(&profiles->arena, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
    if (load_file(profiles, PROFILE_CONFIG, err) && load_file(profiles, PROFILE_CREDENTIALS, err))
        return profiles;
    profiles_free(profiles);
    return NULL;
}

static void wipe_const(const char *text)
{
    union {
        const char *seen;
        char *owned;
    } both = {.seen = text}; /* the arena is ours, only the view of it is const */

    explicit_bzero(both.owned, strlen(text));
}

void profiles_free(Profiles *profiles)
{
    if (!profiles)
        return;
    for (Setting *setting = profiles->settings; setting; setting = setting->next)
        wipe_const(setting->value);
    arena_fini(&profiles->arena);
    free(profiles);
}

const char *profiles_get(const Profiles *profiles, ProfileFile file, const char *kind,
                         const char *name, const char *key)
{
    for (const Setting *setting = profiles->settings; setting; setting = setting->next)
        if (setting->file == file && strcmp(setting->kind, kind) == 0 &&
            strcmp(setting->name, name) == 0 && strcmp(setting->key, key) == 0)
            return *setting->value ? setting->value : NULL;
    return NULL;
}

const char *profiles_setting(const Profiles *profiles, const char *profile, const char *key)
{
    const char *value = profiles_get(profiles, PROFILE_CREDENTIALS, "profile", profile, key);

    return value ? value : profiles_get(profiles, PROFILE_CONFIG, "profile", profile, key);
}

bool profiles_has(const Profiles *profiles, const char *profile)
{
    for (const Section *section = profiles->sections; section; section = section->next)
        if (strcmp(section->kind, "profile") == 0 && strcmp(section->name, profile) == 0)
            return true;
    return false;
}

const char *profiles_path(const Profiles *profiles, ProfileFile file)
{
    return profiles->paths[file];
}
