/* preflight.h - what the source's servers and databases must be like before anything is made, asked
 * all at once.
 *
 * Findings that refuse are things that would break the application (an update on a table without a
 * replica identity fails as soon as the table is published), lose data silently or stop the
 * migration half way; the others are told and kept for the receipt. Nothing is changed. Errors are
 * ERR_SOURCE; a refusal is ERR_FAITHFUL and names everything at once.
 */
#ifndef PREFLIGHT_H
#define PREFLIGHT_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

typedef enum FindingLevel { FINDING_NOTE, FINDING_WARN, FINDING_REFUSE } FindingLevel;

typedef struct Finding Finding;
struct Finding {
    Finding *next;
    FindingLevel level;
    const char *database; /* "" for the whole server */
    const char *check;    /* short name: "keyless updated" */
    const char *text;     /* with the offenders */
    const char *hint;
};

typedef struct Findings {
    Arena *arena;
    Finding *first;
    Finding *last;
    size_t refusals;
} Findings;

void finding_add(Findings *findings, FindingLevel level, const char *database, const char *check,
                 const char *text, const char *hint);

typedef struct PreflightNeeds {
    size_t slots; /* that will be made */
    const char *publication;
    bool rds; /* hints speak of parameter groups and rds_replication */
} PreflightNeeds;

MUST_USE bool preflight_server(Pg *pg, const PreflightNeeds *needs, Findings *findings, Err *err);
MUST_USE bool preflight_database(Pg *pg, const PreflightNeeds *needs, Findings *findings, Err *err);

/* Only what a stream of this database doesn't carry; part of preflight_database too. */
MUST_USE bool preflight_uncarried(Pg *pg, Findings *findings, Err *err);

/* Databases that take connections, without templates and rdsadmin, in order; *names in the arena.
 */
MUST_USE bool preflight_databases(Pg *pg, const char *only, Arena *arena, const char ***names,
                                  size_t *count, Err *err);

/* False when something refuses: all refusals in one error, the first's hint. */
MUST_USE bool preflight_verdict(const Findings *findings, Err *err);
const char *finding_level_name(FindingLevel level);

#endif
