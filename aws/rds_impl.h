/* rds_impl.h - what the rds_*.c files share. */
#ifndef AWS_RDS_IMPL_H
#define AWS_RDS_IMPL_H

#include "aws/client_impl.h"
#include "aws/rds.h"

typedef struct RdsNodes {
    const XmlNode **at;
    size_t count;
} RdsNodes;

/* One Describe call with all its pages. */
typedef struct RdsDescribe {
    const char *operation;
    AwsTags params;      /* name and value; a NULL value isn't sent */
    const char *list;    /* "DBInstances" */
    const char *element; /* "DBInstance" */
} RdsDescribe;

MUST_USE bool rds_describe(Aws *aws, const RdsDescribe *what, Arena *arena, RdsNodes *out,
                           Err *err);

/* A call that makes something under a name we chose, and how to find out whether it is there. */
typedef struct RdsMake {
    const char *operation;
    const Query *query;
    const char *exists; /* the code that says the name is taken */
    /* What is there under that name: *node NULL when nothing is. */
    bool (*find)(Aws *aws, const char *name, Arena *arena, const XmlNode **node, AwsTags *tags,
                 Err *err);
    const char *name;
    const char *result; /* the element of the answer that describes it: "DBSnapshot" */
} RdsMake;

/* *node: what was made, or what an earlier attempt of this run made. */
MUST_USE bool rds_make(Aws *aws, const RdsMake *make, Arena *arena, const XmlNode **node, Err *err);

/* A call whose answer says nothing more than that it worked. */
MUST_USE bool rds_do(Aws *aws, const char *operation, const Query *query, Err *err);

void rds_query_init(Query *query, const char *operation);
AwsTags rds_read_tags(const XmlNode *list, Arena *arena);
void rds_read_instance(const XmlNode *node, Arena *arena, RdsInstance *out);
bool rds_not_found(const char *what, const char *name, const char *code, Err *err);

#endif
