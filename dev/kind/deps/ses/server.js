// Starts the SES stand-in. Not by its own command: that needs a newer Node.js than Debian's.
require("aws-ses-v2-local").default({ host: "0.0.0.0", port: 8005 });
