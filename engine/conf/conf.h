/* conf.h - all settings, from one table (options.def): flag > environment > ini file > default.
 *
 * Filled once in main, read-only afterwards, so every thread may look. Unset TEXT and SECRET
 * options are NULL. Values belong to the Conf; conf_fini wipes the secrets among them.
 */
#ifndef CONF_H
#define CONF_H

#include "engine/base/arena.h"
#include "engine/base/buf.h"
#include "engine/base/err.h"

#define CONF_TYPE_TEXT   const char *
#define CONF_TYPE_SECRET const char *
#define CONF_TYPE_CHOICE const char *
#define CONF_TYPE_COUNT  uint64_t
#define CONF_TYPE_SIZE   uint64_t
#define CONF_TYPE_MS     uint64_t
#define CONF_TYPE_BOOL   bool

typedef struct ConfMeta ConfMeta;

typedef struct Conf {
#define OPTION(field, section, key, flag, kind, standard, least, most, help) CONF_TYPE_##kind field;
#include "engine/conf/options.def"
#undef OPTION
    ConfMeta *meta; /* where the values came from; NULL in a Conf that was made by hand */
} Conf;

typedef enum ConfKind {
    CONF_TEXT,
    CONF_SECRET,
    CONF_CHOICE,
    CONF_COUNT,
    CONF_SIZE,
    CONF_MS,
    CONF_BOOL
} ConfKind;

typedef enum ConfFrom { CONF_FROM_DEFAULT, CONF_FROM_FILE, CONF_FROM_ENV, CONF_FROM_FLAG } ConfFrom;

typedef struct ConfOption {
    const char *section;
    const char *key;
    const char *flag; /* without the dashes: "apply-batch-bytes" */
    const char *env;  /* "KEYBRIDGE_APPLY_BATCH_BYTES" */
    ConfKind kind;
    const char *standard; /* as one would write it; NULL: unset */
    uint64_t least, most; /* both 0: no limits */
    const char *help;
    size_t offset; /* in Conf */
} ConfOption;

typedef struct ConfOrigin {
    ConfFrom from;
    const char *file; /* FROM_FILE */
    unsigned line;
} ConfOrigin;

size_t conf_count(void);
const ConfOption *conf_option(size_t index);
const ConfOption *conf_by_flag(const char *flag);                    /* NULL: there is none */
const ConfOption *conf_by_key(const char *section, const char *key); /* NULL: there is none */
bool conf_section_exists(const char *section);
const char *conf_kind_name(ConfKind kind);

/* All defaults. */
void conf_init(Conf *conf);
void conf_fini(Conf *conf);

/* Later calls win, so: file, environment, flags. Each checks kind, unit, range and choice. */
MUST_USE bool conf_read_file(Conf *conf, const char *path, Err *err);
MUST_USE bool conf_read_env(Conf *conf, char *const *env, Err *err);
MUST_USE bool conf_set(Conf *conf, const ConfOption *option, const char *value, ConfOrigin origin,
                       Err *err);

ConfOrigin conf_origin(const Conf *conf, const ConfOption *option);
/* What was odd but not wrong, such as unknown KEYBRIDGE_… variables; NULL after the last. */
const char *conf_warning(const Conf *conf, size_t index);

/* The value as one would write it, "" when unset, "(secret)" for secrets. */
void conf_put_value(Buf *out, const Conf *conf, const ConfOption *option);

/* Sizes and times as the options take them: exact, in the biggest unit. */
void conf_put_size(Buf *out, uint64_t bytes);
void conf_put_ms(Buf *out, uint64_t ms);

/* The name in a list that `name` was probably meant to be, NULL when none is near. */
const char *conf_nearest(const char *name, const char *const *all, size_t count);

#endif
