#include "aws/xml.h"

#include <errno.h>
#include <expat.h>

#include "engine/base/buf.h"

typedef struct Build {
    XML_Parser parser;
    Arena *arena;
    XmlNode *root;
    XmlNode *open[XML_MOST_DEPTH];
    size_t depth;
    size_t nodes;
    Buf text; /* of the innermost element so far */
    const char *refused;
} Build;

static void refuse(Build *build, const char *why)
{
    if (!build->refused)
        build->refused = why;
    XML_StopParser(build->parser, XML_FALSE);
}

static const char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');

    return colon ? colon + 1 : name;
}

static void link_child(XmlNode *parent, XmlNode *node)
{
    if (parent->last)
        parent->last->next = node;
    else
        parent->first = node;
    parent->last = node;
}

static void XMLCALL on_start(void *self, const XML_Char *name, const XML_Char **attributes)
{
    Build *build = self;
    XmlNode *node;

    (void)attributes;
    if (build->refused)
        return; /* expat may still report what it has parsed */
    if (build->depth == XML_MOST_DEPTH) {
        refuse(build, "elements are nested too deeply");
        return;
    }
    if (++build->nodes > XML_MOST_NODES) {
        refuse(build, "there are too many elements");
        return;
    }
    node = arena_new(build->arena, XmlNode);
    node->name = arena_strdup(build->arena, local_name(name));
    node->text = "";
    if (build->depth)
        link_child(build->open[build->depth - 1], node);
    else
        build->root = node;
    build->open[build->depth++] = node;
    buf_clear(&build->text);
}

static void XMLCALL on_end(void *self, const XML_Char *name)
{
    Build *build = self;
    XmlNode *node;

    (void)name;
    if (build->refused)
        return;
    node = build->open[--build->depth];
    if (!node->first && build->text.len)
        node->text = arena_str_of(build->arena, buf_span(&build->text));
    buf_clear(&build->text);
}

static void XMLCALL on_text(void *self, const XML_Char *at, int len)
{
    Build *build = self;

    if (!build->refused)
        buf_put(&build->text, at, (size_t)len);
}

static void XMLCALL on_doctype(void *self, const XML_Char *name, const XML_Char *system,
                               const XML_Char *public, int internal)
{
    (void)name;
    (void)system;
    (void)public;
    (void)internal;
    refuse(self, "it has a document type declaration");
}

static void XMLCALL on_entity(void *self, const XML_Char *name, int is_parameter,
                              const XML_Char *value, int len, const XML_Char *base,
                              const XML_Char *system, const XML_Char *public,
                              const XML_Char *notation)
{
    (void)name;
    (void)is_parameter;
    (void)value;
    (void)len;
    (void)base;
    (void)system;
    (void)public;
    (void)notation;
    refuse(self, "it declares an entity");
}

static bool fail_parse(const Build *build, Err *err)
{
    if (build->refused)
        return err_fail(err, ERR_PROTOCOL, "an XML answer is refused: %s", build->refused);
    return err_fail(err, ERR_PROTOCOL, "an answer isn't XML: %s in line %lu, column %lu",
                    XML_ErrorString(XML_GetErrorCode(build->parser)),
                    XML_GetCurrentLineNumber(build->parser),
                    XML_GetCurrentColumnNumber(build->parser));
}

bool xml_parse(Span text, Arena *arena, XmlNode **root, Err *err)
{
    Build build = {.arena = arena, .parser = XML_ParserCreate(NULL)};
    enum XML_Status status;
    bool ok;

    *root = NULL;
    if (!build.parser)
        abort();
    buf_init(&build.text, text.len + 1);
    XML_SetUserData(build.parser, &build);
    XML_SetElementHandler(build.parser, on_start, on_end);
    XML_SetCharacterDataHandler(build.parser, on_text);
    XML_SetStartDoctypeDeclHandler(build.parser, on_doctype);
    XML_SetEntityDeclHandler(build.parser, on_entity);
    status = text.len > INT32_MAX
                 ? XML_STATUS_ERROR
                 : XML_Parse(build.parser, (const char *)text.at, (int)text.len, XML_TRUE);
    ok = status == XML_STATUS_OK && !build.refused && build.root;
    if (!ok)
        fail_parse(&build, err);
    XML_ParserFree(build.parser);
    buf_wipe(&build.text);
    if (ok)
        *root = build.root;
    return ok;
}

const XmlNode *xml_first(const XmlNode *node, const char *name)
{
    const XmlNode *child = node ? node->first : NULL;

    while (child && name && strcmp(child->name, name) != 0)
        child = child->next;
    return child;
}

const XmlNode *xml_next(const XmlNode *node, const char *name)
{
    do
        node = node->next;
    while (node && name && strcmp(node->name, name) != 0);
    return node;
}

size_t xml_count(const XmlNode *node, const char *name)
{
    size_t count = 0;

    for (const XmlNode *child = xml_first(node, name); child; child = xml_next(child, name))
        count++;
    return count;
}

const XmlNode *xml_at(const XmlNode *node, const char *path)
{
    while (node && *path) {
        size_t len = strcspn(path, "/");
        const XmlNode *child = node->first;

        while (child && !(strlen(child->name) == len && memcmp(child->name, path, len) == 0))
            child = child->next;
        node = child;
        path += len + (path[len] == '/');
    }
    return node;
}

const char *xml_text(const XmlNode *node, const char *path)
{
    const XmlNode *found = xml_at(node, path);

    return found ? found->text : NULL;
}

AwsNum xml_num(const XmlNode *node, const char *path)
{
    const char *text = xml_text(node, path);
    char *end;
    long long value;

    if (!text || !*text)
        return (AwsNum){.set = false};
    errno = 0;
    value = strtoll(text, &end, 10);
    return *end || errno ? (AwsNum){.set = false} : aws_num(value);
}

AwsBool xml_bool(const XmlNode *node, const char *path)
{
    const char *text = xml_text(node, path);

    if (!text || !*text)
        return AWS_UNSET;
    return aws_bool(strcmp(text, "true") == 0);
}

AwsNames xml_names(const XmlNode *node, const char *path, const char *name, Arena *arena)
{
    const XmlNode *list = xml_at(node, path);
    AwsNames names = {.count = 0};

    names.at = arena_array(arena, const char *, xml_count(list, name) + 1);
    for (const XmlNode *child = xml_first(list, name); child; child = xml_next(child, name))
        names.at[names.count++] = child->text;
    return names;
}

/* Length of a character that XML takes, 0 when it's none. */
static size_t char_len(const uint8_t *at, size_t left)
{
    uint32_t value;
    size_t len;

    if (at[0] < 0x80)
        return at[0] >= 0x20 || at[0] == '\t' || at[0] == '\n' || at[0] == '\r' ? 1 : 0;
    len = at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : 2;
    if (at[0] < 0xC2 || at[0] > 0xF4 || left < len)
        return 0;
    value = at[0] & (0xFFU >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((at[i] & 0xC0) != 0x80)
            return 0;
        value = value << 6 | (at[i] & 0x3FU);
    }
    if ((len == 3 && value < 0x800) || (len == 4 && (value < 0x10000 || value > 0x10FFFF)) ||
        (value >= 0xD800 && value <= 0xDFFF) || value == 0xFFFE || value == 0xFFFF)
        return 0;
    return len;
}

/* Length of a numeric escape (&#27; &#x1B;) that XML forbids, 0 when it's none. */
static size_t bad_escape_len(const uint8_t *at, size_t left)
{
    const uint8_t *semicolon = memchr(at, ';', size_min(left, 12));
    char digits[12] = "";
    char *end;
    unsigned long value;
    bool hex;

    if (left < 4 || at[0] != '&' || at[1] != '#' || !semicolon)
        return 0;
    hex = at[2] == 'x';
    memcpy(digits, at + (hex ? 3 : 2), (size_t)(semicolon - at) - (hex ? 3 : 2));
    value = strtoul(digits, &end, hex ? 16 : 10);
    if (*end || end == digits)
        return 0;
    if (value >= 0x20 && value != 0xFFFE && value != 0xFFFF &&
        !(value >= 0xD800 && value <= 0xDFFF) && value <= 0x10FFFF)
        return 0;
    return value == '\t' || value == '\n' || value == '\r' ? 0 : (size_t)(semicolon - at) + 1;
}

void xml_scrub(uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t good = char_len(at + i, len - i);
        size_t bad = bad_escape_len(at + i, len - i);

        if (bad || !good)
            memset(at + i, '?', size_max(bad, 1));
        i += size_max(bad, size_max(good, 1));
    }
}
