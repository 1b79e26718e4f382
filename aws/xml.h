/* xml.h - an XML answer as a small tree in an arena.
 *
 * Element names come without their prefix, attributes are dropped (AWS's answers carry nothing in
 * them but namespaces). Depth and number of elements are limited, a document type or entity
 * declaration is refused. An element has either elements or text: text beside elements is dropped.
 */
#ifndef AWS_XML_H
#define AWS_XML_H

#include "aws/value.h"
#include "engine/base/arena.h"
#include "engine/base/err.h"
#include "engine/base/span.h"

#define XML_MOST_DEPTH 32
#define XML_MOST_NODES 500000

typedef struct XmlNode XmlNode;
struct XmlNode {
    const char *name;
    const char *text; /* never NULL; "" for an element that holds elements */
    XmlNode *first;   /* child */
    XmlNode *last;
    XmlNode *next; /* sibling */
};

/* ERR_PROTOCOL when it isn't such XML. */
MUST_USE bool xml_parse(Span text, Arena *arena, XmlNode **root, Err *err);

/* path: "DBInstance/Endpoint/Address". NULL when it isn't there; NULL node is fine. The first of
 * each name is taken. */
const XmlNode *xml_at(const XmlNode *node, const char *path);
const char *xml_text(const XmlNode *node, const char *path); /* NULL when it isn't there */
AwsNum xml_num(const XmlNode *node, const char *path); /* unset when it isn't there or no number */
AwsBool xml_bool(const XmlNode *node, const char *path);
/* Texts of all children named `name` of the element at path. */
AwsNames xml_names(const XmlNode *node, const char *path, const char *name, Arena *arena);

/* The first child, the next sibling, called `name` (NULL: whatever it's called). */
const XmlNode *xml_first(const XmlNode *node, const char *name);
const XmlNode *xml_next(const XmlNode *node, const char *name);
size_t xml_count(const XmlNode *node, const char *name);

/* Bytes that XML 1.0 forbids (control characters, escapes for them, broken UTF-8) become '?', in
 * place. Database logs are passed on by RDS as they are, and contain them. */
void xml_scrub(uint8_t *at, size_t len);

#endif
