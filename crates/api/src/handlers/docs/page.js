SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  // The token stays in this page's memory.
  persistAuthorization: false,
  // Nothing is asked of swagger.io.
  validatorUrl: null,
});
