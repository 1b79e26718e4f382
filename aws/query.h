/* query.h - the body of an AWS Query request: Action=…&Version=…&Name=value.
 *
 * What is NULL, unset or empty as a list isn't sent. Lists take the whole spelling up to the
 * number, because RDS mixes styles: "VpcSecurityGroupIds.VpcSecurityGroupId", "TagKeys.member".
 */
#ifndef AWS_QUERY_H
#define AWS_QUERY_H

#include "aws/value.h"
#include "engine/base/buf.h"

typedef struct Query {
    Buf body;
} Query;

void query_init(Query *query, const char *action, const char *version);
void query_fini(Query *query);
#define AUTO_QUERY ON_EXIT(query_fini) Query

void query_str(Query *query, const char *name, const char *value);
void query_num(Query *query, const char *name, AwsNum value);
void query_bool(Query *query, const char *name, AwsBool value);
void query_names(Query *query, const char *spelling, AwsNames names);
/* spelling.N.key and spelling.N.value, e.g. "Tags.Tag", "Key", "Value". */
void query_pairs(Query *query, const char *spelling, const char *key, const char *value,
                 AwsTags pairs);
/* Tags.Tag.N without those that AWS reserves ("aws:…"), which no request may carry; `run` (may be
 * NULL) becomes the run tag and replaces one that an earlier run left. */
void query_tags(Query *query, AwsTags tags, const char *run);

#endif
