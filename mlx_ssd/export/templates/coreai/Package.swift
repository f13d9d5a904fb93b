// swift-tools-version: 6.0
import PackageDescription

// Written for coreai-models 0.2.0, from its source; not compiled, not run on a device.
let package = Package(
    name: "Student",
    platforms: [.macOS("27.0"), .iOS("27.0")],
    products: [.library(name: "Student", targets: ["Student"])],
    dependencies: [
        .package(url: "https://github.com/apple/coreai-models", exact: "0.2.0")
    ],
    targets: [
        .target(name: "Student", dependencies: [.product(name: "CoreAILM", package: "coreai-models")]),
        .executableTarget(name: "chat", dependencies: ["Student"]),
    ],
    swiftLanguageModes: [.v5]
)
