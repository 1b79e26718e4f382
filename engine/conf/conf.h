/* conf.h - all settings, from one table (options.def): flag > environment > ini file > default.
 *
 * Filled once in main, read-only afterwards, so every thread may look. Unset TEXT and SECRET options are NULL.
 */
#ifndef CONF_H
#define CONF_H

#include "engine/base/arena.h"
#include "engine/base/err.h"

#define CONF_TYPE_TEXT const char *
#define CONF_TYPE_SECRET const char *
#define CONF_TYPE_CHOICE const char *
#define CONF_TYPE_COUNT uint64_t
#define CONF_TYPE_SIZE uint64_t
#define CONF_TYPE_MS uint64_t
#define CONF_TYPE_BOOL bool

typedef struct Conf {
#define OPTION(field, section, key, flag, kind, standard, least, most, help) CONF_TYPE_##kind field;
#include "engine/conf/options.def"
#undef OPTION
} Conf;

#endif
