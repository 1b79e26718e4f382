/* ini.h - reads [section] and key = value lines.
 *
 * Comments (# or ;) stand on lines of their own. A value is the rest of the line without the blanks
 * around it, or quoted: "…" with \" \\ \n \t. What can't be meant is an error that names file and
 * line.
 */
#ifndef INI_H
#define INI_H

#include "engine/base/err.h"

typedef struct IniEntry {
    const char *section;
    const char *key;
    const char *value;
    unsigned line;
} IniEntry;

/* Called for every entry; what it fails with is returned as it is. Strings live until it returns.
 */
typedef bool IniFn(void *self, const IniEntry *entry, Err *err);

/* `name` is for messages only. */
MUST_USE bool ini_read(FILE *in, const char *name, IniFn *fn, void *self, Err *err);

#endif
