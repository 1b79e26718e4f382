#include "engine/conf/ini.h"

#include <errno.h>

#define LINE_MOST (1024 * 1024) /* nobody writes this; a file of another kind does */
#define NAME_MOST 64

typedef struct Ini {
    const char *name;
    unsigned line;
    char section[NAME_MOST];
    IniFn *fn;
    void *self;
} Ini;

typedef struct Line {
    char *text;
    size_t room;
} Line;

static void free_line(Line *line)
{
    if (line->text)
        explicit_bzero(line->text, line->room); /* it may have held a password */
    free(line->text);
}

#define ini_fail(ini, err, ...) ini_fail_at((ini), (err), __LINE__, __VA_ARGS__)
PRINTF_LIKE(4, 5)
static bool ini_fail_at(const Ini *ini, Err *err, int line, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return err_fail_at(err, ERR_CONFIG, __FILE__, line, "%s:%u: %s", ini->name, ini->line, text);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static char *trim(char *text)
{
    size_t len;

    while (is_blank(*text))
        text++;
    len = strlen(text);
    while (len && is_blank(text[len - 1]))
        text[--len] = '\0';
    return text;
}

static bool is_name(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

    return len > 0 && len < NAME_MOST && text[len] == '\0';
}

/* In place: what is written never overtakes what is read. */
static bool unquote(const Ini *ini, char *text, Err *err)
{
    char *to = text;
    char *at = text + 1;

    for (; *at && *at != '"'; at++) {
        if (*at != '\\') {
            *to++ = *at;
            continue;
        }
        at++;
        if (*at == 'n')
            *to++ = '\n';
        else if (*at == 't')
            *to++ = '\t';
        else if (*at == '"' || *at == '\\')
            *to++ = *at;
        else
            return ini_fail(ini, err,
                            "unknown escape in a quoted value (known: \\\" \\\\ \\n \\t)");
    }
    if (*at != '"')
        return ini_fail(ini, err, "a quoted value has no closing quote");
    at++;
    while (is_blank(*at))
        at++;
    if (*at && *at != '#' && *at != ';')
        return ini_fail(ini, err, "something follows the closing quote of a value");
    *to = '\0';
    return true;
}

static bool read_value(const Ini *ini, char *value, Err *err)
{
    if (*value == '"')
        return unquote(ini, value, err);
    /* Both readings of "x # y" have surprised people; a password may hold it. So say which. */
    for (const char *at = value; *at; at++)
        if ((*at == '#' || *at == ';') && at > value && is_blank(at[-1]))
            return ini_fail(
                ini, err,
                "quote a value that holds \" %c\", or put the comment on a line of its own", *at);
    return true;
}

static bool read_section(Ini *ini, char *text, Err *err)
{
    char *end = strchr(text, ']');
    char *name;

    if (!end || *trim(end + 1) != '\0')
        return ini_fail(ini, err, "a section is written [name]");
    *end = '\0';
    name = trim(text + 1);
    if (!is_name(name))
        return ini_fail(ini, err, "a section's name has only letters, digits, - and _");
    snprintf(ini->section, sizeof(ini->section), "%s", name);
    return true;
}

static bool read_line(Ini *ini, char *text, Err *err)
{
    char *equals;
    IniEntry entry;

    text = trim(text);
    if (*text == '\0' || *text == '#' || *text == ';')
        return true;
    if (*text == '[')
        return read_section(ini, text, err);
    equals = strchr(text, '=');
    if (!equals)
        return ini_fail(ini, err, "neither [section] nor key = value");
    *equals = '\0';
    entry = (IniEntry){ini->section, trim(text), trim(equals + 1), ini->line};
    if (!is_name(entry.key))
        return ini_fail(ini, err, "a key has only letters, digits, - and _");
    if (ini->section[0] == '\0')
        return ini_fail(ini, err, "%s stands before the first [section]", entry.key);
    return read_value(ini, trim(equals + 1), err) && ini->fn(ini->self, &entry, err);
}

bool ini_read(FILE *in, const char *name, IniFn *fn, void *self, Err *err)
{
    Ini ini = {.name = name, .fn = fn, .self = self};
    ON_EXIT(free_line) Line line = {NULL, 0};
    ssize_t len;

    while (errno = 0, (len = getline(&line.text, &line.room, in)) >= 0) {
        char *text = line.text;

        ini.line++;
        if (len > LINE_MOST)
            return ini_fail(&ini, err, "a line of %zd bytes: this isn't a configuration file", len);
        if (memchr(line.text, '\0', (size_t)len))
            return ini_fail(&ini, err, "a zero byte: this isn't a configuration file");
        if (ini.line == 1 && strncmp(text, "\xEF\xBB\xBF", 3) == 0)
            text += 3;
        if (!read_line(&ini, text, err))
            return false;
    }
    if (ferror(in))
        return err_errno(err, ERR_CONFIG, "reading %s", name);
    return true;
}
