/* switch_route53.h - the switch that changes a CNAME in Route 53. */
#ifndef SWITCH_ROUTE53_H
#define SWITCH_ROUTE53_H

#include "aws/client.h"
#include "engine/move/switch.h"

/* zone NULL: the one that holds the record. `aws` is borrowed. */
MUST_USE Switch *switch_route53(Aws *aws, const char *zone, const char *record, unsigned ttl);

#endif
